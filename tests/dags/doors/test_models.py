"""The door of models: weights of somebody else, a folder or a Hub's, go through `qwenops run` and come out learning.

In the same run a model behind an OpenAI-compatible server tags the instructions.
"""

import json
import math
import threading

import pytest
import torch
from tests.dags.conftest import qwenops
from tests.dags.doors.conftest import output, settings, stages_of
from tests.dags.doors.stock_qwen2 import BASE, LONGEST, SIZE, TOKENS, write_stock
from tests.generation.openai_server import serving
from tests.model.hub_mirror import mirror
from transformers import AutoModelForCausalLM, AutoTokenizer

TOKEN = "hf_of_the_user"
KEY = "key-of-the-user-2718"  # pragma: allowlist secret
# A step so small that it changes no weight: what comes out is what was read.
STILL = {"steps": 1, "learning_rate": 1e-30, "final_learning_rate": 1e-30, "warmup_steps": 0, "batch_tokens": 512}


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """Model folders as Qwen2's were published: `untied` in several files, `tied` in one."""
    root = tmp_path_factory.mktemp("stock")
    return {
        "untied": write_stock(root / "untied", tied=False, shard_size="60KB"),
        "tied": write_stock(root / "tied", tied=True, shard_size="5GB"),
    }


def warm_start(source, *, tied):
    fields = {f"pretrain__size__{name}": value for name, value in SIZE.items()}
    fields |= {f"pretrain__training__{name}": value for name, value in STILL.items()}
    return settings(
        mixture__proxies=0,
        tokenizer__init_from=str(source),
        tokenizer__vocabulary=TOKENS + 3,
        pretrain__init_from=str(source),
        pretrain__size__tied_embeddings=tied,
        pretrain__rope_theta=BASE,
        pretrain__phases=[{"length": 64, "steps": 1}],
        **fields,
    )


def run(out, until, *options, **environment):
    return qwenops("run", "smoke", "--out", out, "--until", until, *options, **environment)


def logits(folder):
    """What stock transformers computes with a folder."""
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    ids = torch.arange(3, 63)[None]
    with torch.no_grad():
        return model.eval()(ids).logits


@pytest.fixture(scope="module")
def tagger():
    """A model behind a server: it loses one instruction, talks about another, and tags the rest."""
    lock, seen = threading.Lock(), []

    def answer(prompt):
        with lock:
            seen.append(prompt)
        instruction = prompt.partition("[begin]\n")[2].partition("\n[end]")[0]
        tags = [{"tag": "String work" if "everse" in instruction else "Other", "explanation": "x"}]
        said = json.dumps({"choices": [{"message": {"content": json.dumps(tags)}, "finish_reason": "stop"}]})
        first = list(dict.fromkeys(seen))
        if prompt == first[0]:
            return 500, {}, b"no"
        if len(first) > 1 and prompt == first[1]:
            said = json.dumps({"choices": [{"message": {"content": "As a model I would rather not."}}]})
        return 200, {}, said.encode()

    with serving() as server:
        server.fault = answer
        yield (
            server,
            {
                "kind": "endpoint",
                "url": server.url,
                "model": "tagger-72b",
                "api": "chat",
                "api_key_variable": "TAGGER_KEY",  # pragma: allowlist secret
                "max_retries": 1,
            },
        )


@pytest.fixture(scope="module")
def trained(started, stock, tagger):
    """What a run said that takes tokenizer and weights from the untied folder and its tags from the tagger.

    With its stages, and its outputs by stage.
    """
    options = settings(ontology__tagger="llm", ontology__engine=tagger[1])
    done = run(started, "sft_seed", *warm_start(stock["untied"], tied=False), *options, TAGGER_KEY=KEY)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    stages = stages_of(started)
    assert stages["decontaminate"]["status"] == "skipped"
    return done, stages, {name: output(started, name) for name in stages}


def test_stock_folder_is_read_to_the_last_bit_and_its_tokens_keep_their_numbers(trained, stock):
    *_, outputs = trained
    assert torch.equal(logits(outputs["pretrain"]), logits(stock["untied"]))
    ours, theirs = (AutoTokenizer.from_pretrained(place) for place in (outputs["pretrain"], stock["untied"]))
    assert ours.get_vocab() == theirs.get_vocab()
    text = "def lamp(hour):\n    return 'été 守' + str(2026)\n"
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]


def test_stock_folder_is_extended_at_its_own_base_and_length_and_fine_tuned(trained):
    _, stages, outputs = trained
    for name, figures in (("pretrain", ("loss.first", "loss.final")), ("extend", ("loss.first", "loss.final"))):
        assert all(math.isfinite(stages[name]["metrics"][figure]) for figure in figures)
    assert stages["extend"]["metrics"]["loss.final"] < stages["extend"]["metrics"]["loss.first"]
    assert "pass_rate" in stages["sft_seed"]["metrics"]
    config = AutoModelForCausalLM.from_pretrained(outputs["sft_seed"]).config
    assert (config.max_position_embeddings, config.rope_parameters["rope_theta"]) == (LONGEST, BASE)
    assert not config.tie_word_embeddings
    after = [logits(outputs[name]) for name in ("pretrain", "extend", "sft_seed")]
    assert not torch.equal(after[0], after[1]) and not torch.equal(after[1], after[2])
    tokenizer = AutoTokenizer.from_pretrained(outputs["sft_seed"])
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == TOKENS + 2


@pytest.fixture
def hub(stock, tmp_path):
    """A Hub that gives `owner/name` to the holder of a token alone: main is the untied model, v2 the tied one."""
    with mirror("owner/name", {"main": stock["untied"], "v2": stock["tied"]}, token=TOKEN) as server:
        yield server, {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "hub"), "HF_TOKEN": TOKEN}


def test_hub_id_is_fetched_from_the_users_endpoint_at_its_revision(started, stock, hub):
    server, environment = hub
    done = run(started, "pretrain", *warm_start("owner/name@v2", tied=True), **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert torch.equal(logits(output(started, "pretrain")), logits(stock["tied"]))
    assert any(server.commit("v2") in path and path.endswith("model.safetensors") for path in server.asked)
    # The mirror gives nothing to anybody else; what transformers asks beside the files goes without.
    assert f"Bearer {TOKEN}" in server.tokens


@pytest.mark.parametrize(
    ("source", "token", "said"),
    [("owner/name@v3", TOKEN, "owner/name@v3"), ("owner/name", "hf_wrong", "owner/name")],
    ids=["revision", "token"],
)
def test_hub_that_refuses_ends_the_run_before_its_first_stage(hub, tmp_path, source, token, said):
    _, environment = hub
    options = warm_start(source, tied=False)
    done = run(tmp_path / "run", "pretrain", *options, **environment | {"HF_TOKEN": token})
    assert done.returncode == 5, done.stdout + done.stderr
    assert f"cannot fetch {said}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "stages").exists()
    assert token not in done.stdout + done.stderr


def test_model_behind_a_server_tags_every_instruction_and_what_it_loses_is_counted(trained, tagger):
    server, _ = tagger
    _, stages, outputs = trained
    stage = stages["ontology"]
    asked = {request["messages"][-1]["content"] for request in server.requests}
    assert len(asked) == stage["counts"]["kept"] == stage["metrics"]["answers.all"]
    assert (stage["metrics"]["answers.lost"], stage["metrics"]["answers.not_understood"]) == (1, 1)
    assert any(sentence.startswith("2 of ") for sentence in stage["warnings"])
    assert {(request["model"], request["key"]) for request in server.requests} == {("tagger-72b", f"Bearer {KEY}")}
    ontology = json.loads((outputs["ontology"] / "ontology.json").read_text())
    assert ontology["tagger"] == "llm: tagger-72b"
    assert {tag["tag"] for tag in ontology["tags"]} == {"string work", "other"}
    assert sum(tag["count"] for tag in ontology["tags"]) == stage["counts"]["kept"] - 2


def test_key_of_the_user_is_in_no_file_of_the_run(trained, started):
    done, *_ = trained
    assert KEY not in done.stdout + done.stderr
    assert not [path for path in started.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_server_that_is_gone_ends_the_run_with_one_message_and_the_status_of_a_platform(trained, started):
    gone = {"kind": "endpoint", "url": "http://127.0.0.1:9/v1", "model": "tagger-72b", "max_retries": 0}
    options = settings(ontology__tagger="llm", ontology__engine=gone)
    done = run(started, "ontology", *options)
    assert done.returncode == 5, done.stdout + done.stderr
    assert "http://127.0.0.1:9/v1" in done.stderr and "Traceback" not in done.stderr
