"""Upcycle a dense checkpoint, train the mixture and its dense control on the same batches, publish the mixture."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from qwenops.contracts.checkpoint import read_facts
from qwenops.contracts.tokens import TokenShards
from qwenops.errors import ContractError
from qwenops.model.checkpoints import load_model, load_tokenizer, save_checkpoint, to_device
from qwenops.model.routing import RouterLog, watch_routers
from qwenops.model.upcycling import Upcycling, upcycle
from qwenops.platform.ray.train import launch
from qwenops.platform.stage.handle import Stage
from qwenops.pretraining.held_out import text_rows
from qwenops.pretraining.summary import write_summary
from qwenops.pretraining.train import gather_full_model
from qwenops.pretraining.upcycle.config import UpcycleConfig
from qwenops.pretraining.upcycle.continued import (
    ContinuedTraining,
    balanced_language_modelling,
    continue_training,
    spread_batches,
)
from qwenops.training.objective import language_modelling, mean_loss, text_objective
from qwenops.training.parallel import apply_parallelism, data_parallel_rank, worker_rank
from qwenops.training.threads import tune_training_threads


def run(config: UpcycleConfig, *, tokens: Path, tokenizer: Path, checkpoint: Path, stage: Stage) -> None:
    """Write the MoE checkpoint, `load.json` and a summary into `stage.out`."""
    report = launch(
        upcycle_loop,
        {"config": config, "tokens": tokens, "tokenizer": tokenizer, "checkpoint": checkpoint, "stage": stage},
        stage.context,
        stage.node,
        stage.scratch / "ray",
    )
    figures = report["metrics"]
    for name, value in figures.items():
        stage.metric(name, value)
    stage.records = int(figures["parameters.total"])
    if dead := int(figures["experts.dead"]):
        stage.warn(f"{dead} experts receive less than a tenth of a fair share; raise balance_coefficient")
    (stage.out / "load.json").write_text(json.dumps(report["load"], indent=1), encoding="utf-8")
    write_summary(stage.out, "Upcycling", figures, {})


def upcycle_loop(job: dict[str, Any]) -> dict[str, Any]:
    """What every Ray Train worker runs: upcycle, train the mixture and the control, measure; rank 0 saves."""
    config, stage, device = job["config"], job["stage"], worker_rank()
    shards, tokenizer = TokenShards(job["tokens"]), load_tokenizer(job["tokenizer"])
    facts, dense = read_facts(job["checkpoint"]), load_model(job["checkpoint"])
    if shards.vocabulary > dense.config.vocab_size:
        raise ContractError(
            "tokens and checkpoint do not fit together",
            expected=f"ids below {dense.config.vocab_size}",
            found=shards.vocabulary,
            action="train the checkpoint on the tokens of this run",
        )
    how = Upcycling(config.experts, config.reinit_ratio, config.granularity, config.start, stage.seed)
    moe = to_device(upcycle(dense, how), device.kind)
    text = text_rows(shards, config.length, config.heldout_tokens)
    first = spread_batches(shards, config.length, config.training, stage.seed, device)
    threads = tune_training_threads(stage.scratch / "threads", moe, language_modelling, first, config.training)
    apply_parallelism(moe, stage.context.parallel, config.length)
    batches = spread_batches(shards, config.length, config.training, stage.seed, data_parallel_rank())
    common = {"stage": stage, "place": device}
    control = None
    models = 1 if config.control == "none" else 2
    # Held-out text is read before and after.
    tokens = config.training.steps * config.training.batch_tokens + 2 * sum(batch["num_tokens"] for batch in text)
    with stage.progress(models * tokens, "tokens") as progress:
        with watch_routers(moe) as log:
            objective = balanced_language_modelling(log, config.balance_coefficient, text_objective(config.training))
            mixture = continue_training(
                moe, objective, batches, config.length, text, config.training, name="moe", progress=progress, **common
            )
            log.reset_load()
            mean_loss(moe, text)
        if config.control == "dense":
            to_device(dense, device.kind)
            apply_parallelism(dense, stage.context.parallel, config.length)
            control = continue_training(
                dense,
                text_objective(config.training),
                batches,
                config.length,
                text,
                config.training,
                name="dense",
                progress=progress,
                **common,
            )
    finished = gather_full_model(moe)
    if device.rank == 0:
        seen = facts.tokens_seen + mixture.fit.tokens
        save_checkpoint(
            finished, tokenizer, stage.out, facts.context_length_tokens, seen, parent=job["checkpoint"].name
        )
    metrics = _figures(config, moe, log, mixture, control) | {"threads": threads}
    return {"metrics": metrics, "load": {layer: counts.tolist() for layer, counts in sorted(log.load.items())}}


def _figures(
    config: UpcycleConfig,
    moe: PreTrainedModel,
    log: RouterLog,
    mixture: ContinuedTraining,
    control: ContinuedTraining | None,
) -> dict[str, float]:
    total = sum(parameter.numel() for parameter in moe.parameters())
    unused = config.experts.num_experts - config.experts.num_active
    one_expert = 3 * moe.config.hidden_size * config.experts.expert_width
    figures = {
        "loss.moe.first": mixture.before,
        "loss.moe": mixture.after,
        "experts.dead": log.num_dead(),
        "experts.max_over_mean": log.max_over_mean(),
        "experts.entropy": log.entropy(),
        "parameters.total": total,
        "parameters.active": total - moe.config.num_hidden_layers * unused * one_expert,
    } | mixture.speed
    return figures | ({"loss.dense.first": control.before, "loss.dense": control.after} if control else {})
