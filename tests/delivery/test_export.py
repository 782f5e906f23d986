import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.delivery.artifacts import TEMPLATE, make_checkpoint, make_tokenizer, make_tokens
from transformers import AutoModelForCausalLM, GenerationConfig

from qwenops.contracts.manifest import file_digest
from qwenops.delivery.export.chat_checks import stops_at_end_of_turn
from qwenops.delivery.export.config import ExportConfig
from qwenops.delivery.export.quickstart import run_quickstart
from qwenops.delivery.export.run import run
from qwenops.delivery.gate_config import NotGated
from qwenops.errors import StageError
from qwenops.platform.context import RunContext
from qwenops.platform.stage.handle import Stage


def _export(tmp_path: Path, config: ExportConfig, *, tied: bool = True, template: str = TEMPLATE) -> Stage:
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    tokens = make_tokens(tmp_path / "tokens", tokenizer)
    checkpoint = make_checkpoint(tmp_path / "online", tokenizer, tied=tied)
    (tmp_path / "out").mkdir()
    (tmp_path / "scratch").mkdir()
    context = RunContext(store=str(tmp_path), events=str(tmp_path), cache=str(tmp_path))
    stage = Stage("export", 7, context, tmp_path / "out", tmp_path / "scratch")
    run(config, checkpoint=checkpoint, tokenizer=tmp_path / "tokenizer", tokens=tokens, stage=stage)
    return stage


def test_export_tied_model_runs_quickstart_without_the_project(tmp_path):
    stage = _export(tmp_path, ExportConfig(dtype="float32", quickstart_new_tokens=8, decoding="greedy"))
    checks = json.loads((stage.out / "export.json").read_text())
    assert checks["quickstart"]["prompt"].endswith("<|im_start|>assistant\n")
    assert checks["quickstart"]["tokens"] <= 8
    assert stage.metrics["export.max_logit_difference"] < 1e-5


@pytest.mark.parametrize("tied", [True, False])
def test_export_bfloat16_matches_the_rounded_model(tmp_path, tied):
    stage = _export(tmp_path, ExportConfig(quickstart="skip"), tied=tied)
    weights = load_file(stage.out / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert ("lm_head.weight" in weights) is not tied
    assert stage.metrics["export.max_logit_difference"] < 1e-4
    assert AutoModelForCausalLM.from_pretrained(stage.out, torch_dtype="auto").dtype == torch.bfloat16


def test_export_config_carries_old_and_new_rope_keys(tmp_path):
    stage = _export(tmp_path, ExportConfig(dtype="float32", quickstart="skip"))
    config = json.loads((stage.out / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10000.0
    assert config["torch_dtype"] == config["dtype"] == "float32"
    assert "dual_chunk_attention_config" not in config
    generation = json.loads((stage.out / "generation_config.json").read_text())
    assert len(generation["eos_token_id"]) == 2
    assert generation["top_k"] == 20


def test_export_saved_again_gives_equal_weights(tmp_path):
    stage = _export(tmp_path, ExportConfig(dtype="float32", quickstart="skip"))
    AutoModelForCausalLM.from_pretrained(stage.out, torch_dtype="auto").save_pretrained(tmp_path / "again")
    assert file_digest(tmp_path / "again" / "model.safetensors") == file_digest(stage.out / "model.safetensors")


def test_card_front_matter_names_license_results_and_context(tmp_path):
    stage = _export(tmp_path, ExportConfig(dtype="float32", quickstart="skip"))
    _, front, body = (stage.out / "README.md").read_text().split("---\n", 2)
    fields = {line.split(": ", 1)[0]: json.loads(line.split(": ", 1)[1]) for line in front.strip().splitlines()}
    assert fields["license"] == "apache-2.0"
    assert fields["pipeline_tag"] == "text-generation"
    values = {r["metrics"][0]["name"]: r["metrics"][0]["value"] for r in fields["model-index"][0]["results"]}
    assert values == {"pass_rate": 0.5, "kl.final": 0.1}
    assert "supported maximum context | 64 tokens" in body
    assert '"chunk_size": 64' in body


def test_card_says_what_the_gate_does_not_judge(tmp_path):
    lifted = NotGated(figure="safety.*", why="a model of this size is neither safe nor unsafe")
    stage = _export(tmp_path, ExportConfig(dtype="float32", quickstart="skip", not_gated=(lifted,)))
    card = (stage.out / "README.md").read_text()
    assert lifted.figure in card
    assert lifted.why in card
    assert "Nothing here says that it is safe" in card


def test_export_renders_conversations_as_training_does_and_ends_its_turn(tmp_path):
    stage = _export(tmp_path, ExportConfig(dtype="float32", quickstart="skip"))
    assert stage.metrics["export.template_differences"] == 0
    assert stage.metrics["export.ends_turn"] == 1


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("no system message", TEMPLATE.replace("You are a helpful assistant.", "")),
        ("another system message", TEMPLATE.replace("helpful", "useful")),
        ("no line after the header", TEMPLATE.replace("assistant\n{% endif", "assistant{% endif")),
        ("stripped contents", TEMPLATE.replace("m.content }}", "m.content | trim }}")),
        (
            "a system message of one's own is lost",
            TEMPLATE.replace("in messages %}", "in messages if m.role != 'system' %}"),
        ),
        ("no way to ask", TEMPLATE.replace("{% if add_generation_prompt %}", "{% if false %}")),
        ("it fails", "{{ raise_exception('no') }}"),
    ],
)
def test_template_that_renders_other_text_is_not_exported(tmp_path, name, template):
    with pytest.raises(StageError, match="chat template"):
        _export(tmp_path, ExportConfig(dtype="float32", quickstart="skip"), template=template)


def test_generation_that_does_not_end_with_the_turn_is_not_exported(tmp_path):
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    make_checkpoint(tmp_path / "model", tokenizer)
    assert stops_at_end_of_turn(tmp_path / "model")
    GenerationConfig(eos_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>")).save_pretrained(tmp_path / "model")
    assert not stops_at_end_of_turn(tmp_path / "model")


def test_quickstart_on_a_broken_folder_says_what_failed(tmp_path):
    with pytest.raises(StageError, match="quickstart"):
        run_quickstart(tmp_path, "hello", 4, 60)


def test_export_writes_the_long_context_mode_under_the_names_that_servers_read(tmp_path):
    length = 256
    for mode in ("yarn", "dca"):
        (tmp_path / mode).mkdir()
        stage = _export(tmp_path / mode, ExportConfig(dtype="float32", quickstart="skip", long_context=mode))
        config = json.loads((stage.out / "config.json").read_text())
        loaded = AutoModelForCausalLM.from_pretrained(stage.out)
        if mode == "yarn":
            length = config["max_position_embeddings"]
            scaling = {"factor": 4.0, "original_max_position_embeddings": length}
            assert config["rope_scaling"] == {"type": "yarn", "rope_type": "yarn", **scaling}
            assert loaded.config.rope_parameters["rope_type"] == "yarn"
            assert loaded.model.rotary_emb.attention_scaling > 1.1
        else:
            keys = {"chunk_size": length, "local_size": length // 8, "original_max_position_embeddings": length}
            assert config["dual_chunk_attention_config"] == keys
            assert loaded.config.rope_parameters["rope_type"] == "default"
