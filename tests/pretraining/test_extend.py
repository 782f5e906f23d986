import json

import pytest
import torch
from tests.pretraining.corpus import EXTEND, PRETRAIN, published
from transformers import AutoModelForCausalLM, AutoTokenizer

from qwenops.contracts.checkpoint import read_facts
from qwenops.errors import ContractError
from qwenops.model.architecture import model_config
from qwenops.model.checkpoints import save_checkpoint
from qwenops.model.sizes import SIZES
from qwenops.pretraining.rows import Phase


@pytest.fixture
def extended(run_stage, artifacts, pretrained):
    return run_stage("extend", EXTEND, {**artifacts, "checkpoint": pretrained.path})


def test_extend_writes_the_new_base_and_length_and_adds_up_tokens(extended):
    config = json.loads((extended.path / "config.json").read_text())
    assert config["rope_theta"] == 1_000_000.0
    assert config["max_position_embeddings"] == 256
    facts = read_facts(extended.path)
    seen = sum(config.training.steps * config.training.batch_tokens for config in (PRETRAIN, EXTEND))
    assert (facts.context_length_tokens, facts.rope_theta, facts.tokens_seen) == (256, 1_000_000.0, seen)
    assert AutoModelForCausalLM.from_pretrained(extended.path).config.rope_parameters["rope_theta"] == 1_000_000.0


def test_extend_lowers_the_loss_at_both_lengths(extended, pretrained):
    metrics = extended.manifest.metrics
    assert metrics["loss.final"] < metrics["loss.first"]
    assert metrics["loss.short.before"] == pytest.approx(pretrained.manifest.metrics["loss.final"], abs=1e-4)
    assert metrics["loss.short.final"] < metrics["loss.short.before"]
    assert {"bits_per_byte.en", "bits_per_byte.fr", "needle.accuracy", "needle.accuracy.short"} <= metrics.keys()


def test_extend_reads_more_long_documents_than_pretraining_and_says_how_many(extended):
    lengths = json.loads((extended.path / "document_lengths.json").read_text(encoding="utf-8"))
    assert [sum(shares.values()) for shares in lengths.values()] == pytest.approx([1, 1])
    # The powers of two that begin at the length trained before.
    beyond = {name: sum(s for bin, s in shares.items() if int(bin[5:]) >= 128) for name, shares in lengths.items()}
    metrics = extended.manifest.metrics
    assert beyond == pytest.approx({name: metrics[f"long_share.{name}"] for name in ("corpus", "trained")})
    assert metrics["long_share.trained"] == pytest.approx((1 + metrics["long_share.corpus"]) / 2)


def test_extend_lowers_the_loss_at_the_places_it_adds(extended):
    metrics = extended.manifest.metrics
    assert metrics["loss.beyond.final"] < metrics["loss.beyond.first"]
    points = [json.loads(line) for line in (extended.path / "curves.jsonl").read_text(encoding="utf-8").splitlines()]
    final = [point for point in points if point["name"] == "position_loss.final"]
    assert (len(final), final[-1]["step"]) == (32, 256)
    assert sum(point["value"] for point in final) / 32 == pytest.approx(metrics["loss.final"])


def test_extend_without_long_documents_is_refused(run_stage, artifacts, pretrained):
    config = EXTEND.model_copy(update={"long_tokens": 10**6})
    with pytest.raises(ContractError, match="no long documents"):
        run_stage("extend", config, {**artifacts, "checkpoint": pretrained.path})


@pytest.mark.parametrize("base", [1_000_000.0, 50_000.0])
def test_model_that_reads_further_already_trains_on_at_its_own_base_and_length(run_stage, artifacts, tmp_path, base):
    torch.manual_seed(0)
    config = model_config(PRETRAIN.size, rope_theta=base, max_position_embeddings=131_072)
    folder, tokenizer = tmp_path / "stock", AutoTokenizer.from_pretrained(artifacts["tokenizer"])
    save_checkpoint(AutoModelForCausalLM.from_config(config), tokenizer, folder, 131_072, 0)
    done = run_stage("extend", EXTEND, {**artifacts, "checkpoint": published(folder, "pretrain")})
    facts = read_facts(done.path)
    assert (facts.context_length_tokens, facts.rope_theta) == (131_072, base)
    assert json.loads((done.path / "config.json").read_text())["max_position_embeddings"] == 131_072
    metrics = done.manifest.metrics
    assert metrics["loss.first"] == metrics["loss.before"]
    assert metrics["loss.final"] < metrics["loss.first"]
    assert not [name for name in metrics if name.startswith("loss.beyond")]


@pytest.mark.integration
def test_extend_trains_half_a_billion_parameters_at_4096_tokens(run_stage, artifacts, tmp_path):
    """The shape of the smallest released model with random weights, one row a step; a GPU runs the same at 32,768."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(model_config(SIZES["qwen2_0_5b"](), max_position_embeddings=2048))
    folder = tmp_path / "checkpoint"
    save_checkpoint(model, AutoTokenizer.from_pretrained(artifacts["tokenizer"]), folder, 2048, 0)
    del model
    training = EXTEND.training.model_copy(
        update={
            "steps": 2,
            "batch_tokens": 4096,
            "warmup_steps": 0,
            "learning_rate": 1e-3,
            "optimizer": "adamw",
            "recompute": "layers",
        }
    )
    few = {"evaluation_tokens": 4097, "evaluation_needles": 0}
    config = EXTEND.model_copy(update={"phases": (Phase(length=4096, steps=2),), "training": training} | few)
    metrics = run_stage("extend", config, {**artifacts, "checkpoint": published(folder, "pretrain")}).manifest.metrics
    print(metrics)
    assert metrics["loss.final"] < metrics["loss.first"]
