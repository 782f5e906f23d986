import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.delivery.artifacts import make_tokenizer, publish
from tests.model.small import random_ids, small_model

from qwenops.contracts.checkpoint import read_facts
from qwenops.contracts.tokens import TokenIndex, TokenShards, write_index, write_shard
from qwenops.errors import ContractError
from qwenops.model.checkpoints import load_model, save_checkpoint
from qwenops.model.routing import watch_routers
from qwenops.model.sizes import Experts
from qwenops.platform.context import RunContext
from qwenops.platform.stage.handle import Stage
from qwenops.pretraining.upcycle.config import UpcycleConfig
from qwenops.pretraining.upcycle.continued import balanced_language_modelling, spread_batches
from qwenops.pretraining.upcycle.run import run
from qwenops.training.batching import text_batch
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import FitCallbacks, fit
from qwenops.training.objective import language_modelling
from qwenops.training.parallel import WorkerRank

CONFIG = UpcycleConfig(
    experts=Experts(num_experts=4, num_active=2, expert_width=24, shared_width=96),
    length=32,
    training=TrainingConfig(
        steps=12,
        batch_tokens=256,
        learning_rate=5e-3,
        final_learning_rate=0.0,
        warmup_steps=1,
        schedule="linear",
    ),
    heldout_tokens=256,
)


def make_shards(folder: Path, vocabulary: int = 259) -> Path:
    """Documents that count upwards, so that a few steps of training show."""
    documents = [[*((start + step) % 200 for step in range(150)), 0] for start in range(40)]
    shards = {
        f"{split}-web": write_shard(folder, f"{split}-web", documents, ["en"] * 40, 6000, "uint16")
        for split in ("train", "heldout")
    }
    write_index(folder, TokenIndex(vocabulary, "uint16", 0, {"web": 1.0}, shards))
    return publish(folder, "tokens")


def stage_in(folder: Path) -> Stage:
    (folder / "out").mkdir()
    (folder / "scratch").mkdir()
    context = RunContext(store=str(folder), events=str(folder), cache=str(folder))
    return Stage("upcycle", 7, context, folder / "out", folder / "scratch")


@pytest.fixture
def inputs(tmp_path):
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    save_checkpoint(small_model(), tokenizer, tmp_path / "extend", 64, 1000)
    return {
        "tokens": make_shards(tmp_path / "tokens"),
        "tokenizer": tmp_path / "tokenizer",
        "checkpoint": tmp_path / "extend",
    }


def test_upcycle_publishes_a_mixture_that_learnt_and_its_control(tmp_path, inputs):
    stage = stage_in(tmp_path)
    run(CONFIG, **inputs, stage=stage)
    found = stage.metrics
    assert found["loss.moe"] < found["loss.moe.first"] - 0.2
    assert found["loss.dense"] < found["loss.dense.first"]
    assert found["experts.max_over_mean"] >= 1
    assert found["parameters.active"] == found["parameters.total"] - 2 * 2 * 3 * 64 * 24
    model, facts = load_model(stage.out), read_facts(stage.out)
    assert (model.config.model_type, facts.tokens_seen) == ("qwen2_moe", 1000 + 12 * 256)
    assert torch.isfinite(model(random_ids(1, 20)).logits).all()
    load = json.loads((stage.out / "load.json").read_text())
    assert [sum(counts) for counts in load.values()] == [2 * sum(load["0"]) // 2] * 2
    assert "loss.moe" in (stage.out / "summary.md").read_text()


def test_upcycle_without_a_control_reports_the_mixture_alone(tmp_path, inputs):
    stage = stage_in(tmp_path)
    few = CONFIG.training.model_copy(update={"steps": 2})
    run(CONFIG.model_copy(update={"control": "none", "training": few}), **inputs, stage=stage)
    assert "loss.dense" not in stage.metrics


def test_upcycle_refuses_tokens_of_another_vocabulary(tmp_path, inputs):
    inputs["tokens"] = make_shards(tmp_path / "others", vocabulary=5000)
    with pytest.raises(ContractError, match="do not fit"):
        run(CONFIG, **inputs, stage=stage_in(tmp_path))


def test_spread_batches_resume_anywhere_and_divide_between_workers(tmp_path):
    shards = TokenShards(make_shards(tmp_path / "tokens"))
    alone = WorkerRank(0, 1, "cpu")
    whole = list(spread_batches(shards, 32, CONFIG.training, 3, alone)(0))
    rest = list(spread_batches(shards, 32, CONFIG.training, 3, alone)(9))
    assert len(whole) == 12
    assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(whole[9:], rest, strict=True))
    halves = [next(spread_batches(shards, 32, CONFIG.training, 3, WorkerRank(rank, 2, "cpu"))(0)) for rank in (0, 1)]
    assert torch.equal(whole[0]["input_ids"][0::2], halves[0]["input_ids"])
    assert torch.equal(whole[0]["input_ids"][1::2], halves[1]["input_ids"])


def _router_logits(model, ids):
    """Raw logits of every router, from its inputs and weight."""
    found = []

    def record(gate, inputs):
        found.append(inputs[0].flatten(0, -2) @ gate.weight.T)

    hooks = [layer.mlp.gate.register_forward_pre_hook(record) for layer in model.model.layers]
    logits = model(ids).logits
    for hook in hooks:
        hook.remove()
    return logits, found


def test_cut_step_has_the_texts_loss_of_the_whole_and_the_balance_of_its_passes_by_their_tokens():
    model, coefficient = small_model(experts=CONFIG.experts), 0.5
    passes = [text_batch(random_ids(rows, 13).numpy()) for rows in (1, 4)]
    losses, balances = [], []
    with torch.no_grad():
        for batch in passes:
            logits, routers = _router_logits(model, batch["input_ids"])
            losses.append(F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), reduction="none"))
            by_layer = []
            for raw in routers:
                shares = raw.softmax(-1)
                used = F.one_hot(shares.topk(2, -1).indices, 4).sum(1).float().mean(0)
                by_layer.append(4 * (used * shares.mean(0)).sum())
            balances.append(torch.stack(by_layer).mean())
    expected = torch.cat(losses).mean() + coefficient * (balances[0] * 1 + balances[1] * 4) / 5
    loop = CONFIG.training.model_copy(update={"steps": 1, "precision": "fp32", "learning_rate": 1e-12})
    reports = []
    with watch_routers(model) as log:
        objective = balanced_language_modelling(log, coefficient, language_modelling)
        fit(model, objective, lambda _: iter([passes]), loop, hooks=FitCallbacks(on_step=reports.append))
    assert reports[0].loss == pytest.approx(float(expected), rel=1e-5)
    assert reports[0].metrics["text"] == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)
