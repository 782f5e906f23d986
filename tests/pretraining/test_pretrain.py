import json
import multiprocessing
import time

import pytest
import torch
from tests.delivery.artifacts import make_tokenizer
from tests.platform.killing import steps_of
from tests.pretraining.corpus import PRETRAIN
from transformers import AutoModelForCausalLM, AutoTokenizer

from qwenops.contracts.checkpoint import read_facts
from qwenops.errors import ContractError, RecipeError
from qwenops.pretraining.phases import Phase
from qwenops.pretraining.pretrain.run import check_vocabulary

STEPS, BATCH = PRETRAIN.training.steps, PRETRAIN.training.batch_tokens


def test_pretrain_publishes_a_checkpoint_that_transformers_loads(pretrained):
    model = AutoModelForCausalLM.from_pretrained(pretrained.path)
    tokenizer = AutoTokenizer.from_pretrained(pretrained.path)
    logits = model(**tokenizer("The secret", return_tensors="pt")).logits
    assert torch.isfinite(logits).all()
    facts = read_facts(pretrained.path)
    assert (facts.context_length_tokens, facts.rope_theta, facts.tokens_seen) == (128, 10_000.0, STEPS * BATCH)


def test_pretrain_lowers_the_held_out_loss_and_reports_every_language(pretrained):
    metrics = pretrained.manifest.metrics
    assert metrics["loss.final"] < metrics["loss.first"]
    assert metrics["bits_per_byte.en"] > 0
    assert metrics["bits_per_byte.fr"] > 0
    assert metrics["needle.count"] == 8
    assert metrics["tokens_per_second"] > 0
    assert metrics["parameters.total"] == sum(
        p.numel() for p in AutoModelForCausalLM.from_pretrained(pretrained.path).parameters()
    )


def test_pretrain_writes_a_curve_point_for_every_step(pretrained):
    points = [json.loads(line) for line in (pretrained.path / "curves.jsonl").read_text().splitlines()]
    for name in ("loss", "learning_rate", "gradient_norm"):
        assert [point["step"] for point in points if point["name"] == name] == list(range(STEPS))


def test_pretrain_killed_and_run_again_publishes_the_same_weights(run_stage, artifacts, pretrained, tmp_path):
    process = multiprocessing.get_context("fork").Process(target=run_stage, args=("pretrain", PRETRAIN, artifacts))
    process.start()
    deadline = time.monotonic() + 600
    while (
        not list(tmp_path.glob("store/pretrain/.*.scratch/state/step-*[0-9]/checkpoint.json"))
        and time.monotonic() < deadline
    ):
        time.sleep(0.005)
    process.kill()
    process.join()
    assert list(tmp_path.glob("store/pretrain/.*.scratch/state/step-*[0-9]/checkpoint.json"))
    assert not list(tmp_path.glob("store/pretrain/[!.]*"))
    resumed = run_stage("pretrain", PRETRAIN, artifacts)
    expected = (pretrained.path / "model.safetensors").read_bytes()
    assert (resumed.path / "model.safetensors").read_bytes() == expected
    assert steps_of(resumed.path) == steps_of(pretrained.path)


def test_pretrain_from_a_checkpoint_starts_where_that_one_ended(run_stage, artifacts, pretrained):
    warm = run_stage("pretrain", PRETRAIN.model_copy(update={"init_from": str(pretrained.path)}), artifacts)
    assert warm.manifest.metrics["loss.first"] == pytest.approx(pretrained.manifest.metrics["loss.final"], abs=1e-4)


def test_pretrain_with_too_few_embedding_rows_names_the_field(run_stage, artifacts):
    small = PRETRAIN.model_copy(update={"size": PRETRAIN.size.model_copy(update={"vocab_rows": 128})})
    with pytest.raises(RecipeError, match="vocab_rows"):
        run_stage("pretrain", small, artifacts)


def test_config_whose_phases_and_steps_disagree_is_refused():
    plain = PRETRAIN.model_dump()
    plain["training"]["steps"] = 11
    with pytest.raises(ValueError, match="sum of the phases"):
        type(PRETRAIN).model_validate(plain)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rope_theta": 1e6}, "RoPE base"),
        ({"size": PRETRAIN.size.model_copy(update={"num_layers": 3})}, r"pretrain\.size\.num_layers"),
        ({"phases": (Phase(length=512, steps=STEPS),)}, "longer than the initial weights"),
    ],
)
def test_warm_start_that_the_recipe_describes_wrongly_is_refused(run_stage, artifacts, pretrained, changes, words):
    wrong = PRETRAIN.model_copy(update={"init_from": str(pretrained.path), **changes})
    with pytest.raises(RecipeError, match=words):
        run_stage("pretrain", wrong, artifacts)


def test_warm_start_with_another_tokenizer_is_refused(pretrained, tmp_path):
    with pytest.raises(ContractError, match="not that of the initial weights"):
        check_vocabulary(str(pretrained.path), make_tokenizer(tmp_path / "other"))
