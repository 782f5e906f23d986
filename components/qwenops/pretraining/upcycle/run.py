"""Upcycle a dense checkpoint, train the mixture and its dense control on the same batches, publish the mixture."""

import json
from pathlib import Path

from transformers import PreTrainedModel

from qwenops.contracts.checkpoint import read_facts
from qwenops.contracts.tokens import TokenShards
from qwenops.errors import ContractError
from qwenops.model.checkpoints import load_model, load_tokenizer, save_checkpoint
from qwenops.model.routing import RouterLog, watch_routers
from qwenops.model.upcycling import upcycle
from qwenops.platform.progress import Progress
from qwenops.platform.stage import Stage
from qwenops.pretraining.rows import Phase, Practice, RowSource
from qwenops.pretraining.upcycle.config import UpcycleConfig
from qwenops.pretraining.upcycle.continued import (
    Outcome,
    balanced_language_modelling,
    continue_training,
    heldout_batches,
    measure_load,
)
from qwenops.training.fit import StepReport
from qwenops.training.objective import language_modelling


def run(config: UpcycleConfig, *, tokens: Path, tokenizer: Path, checkpoint: Path, stage: Stage) -> None:
    """Write the MoE checkpoint into `stage.out`, with `upcycle.json` and `summary.md` beside it."""
    facts, shards, words = read_facts(checkpoint), TokenShards(tokens), load_tokenizer(tokenizer)
    dense = load_model(checkpoint)
    if shards.vocabulary > dense.config.vocab_size:
        raise ContractError(
            "tokens and checkpoint do not fit together", expected=f"ids below {dense.config.vocab_size}",
            found=shards.vocabulary, action="train the checkpoint on the tokens of this run",
        )
    moe = upcycle(
        dense, config.experts, reinit_ratio=config.reinit_ratio, granularity=config.granularity, seed=stage.seed
    )
    models = 1 if config.control == "none" else 2
    with stage.progress(models * config.training.steps * config.training.batch_tokens, "tokens") as progress:
        with watch_routers(moe) as log:
            sparse = _train(config, "moe", moe, shards, words, stage, progress, log)
        control = _train(config, "dense", dense, shards, words, stage, progress) if models == 2 else None
    save_checkpoint(
        moe, words, stage.out, facts.context_length_tokens, facts.tokens_seen + sparse.fit.tokens,
        parent=checkpoint.parent.name,
    )
    stage.records = sum(parameter.numel() for parameter in moe.parameters())
    _report(config, moe, log, sparse, control, stage)


def _train(
    config: UpcycleConfig, name: str, model: PreTrainedModel, shards: TokenShards, words: object, stage: Stage,
    progress: Progress, log: RouterLog | None = None,
) -> Outcome:
    phases = (Phase(length=config.length, steps=config.training.steps),)
    rows = RowSource(shards, words, phases, Practice(), config.training.batch_tokens, stage.seed)
    heldout = heldout_batches(shards, config.length, config.heldout_tokens, stage.seed)
    objective = balanced_language_modelling(log, config.balance_coefficient) if log else language_modelling

    def on_step(report: StepReport) -> None:
        loss = report.facts.get("text", report.loss)
        stage.curve(f"loss.{name}", report.step, loss)
        progress.advance(report.tokens, f"{name} loss {loss:.3f}")

    outcome = continue_training(
        model, objective, rows.batches(), heldout, config.training, on_step=on_step, state_dir=stage.scratch / name,
        seed=stage.seed,
    )
    if log:
        measure_load(model, log, heldout)
    return outcome


def _report(
    config: UpcycleConfig, moe: PreTrainedModel, log: RouterLog, sparse: Outcome, control: Outcome | None, stage: Stage
) -> None:
    total = stage.records
    unused = config.experts.num_experts - config.experts.num_active
    one_expert = 3 * moe.config.hidden_size * config.experts.expert_width
    figures = {
        "loss.moe.first": sparse.before, "loss.moe": sparse.after, "experts.dead": log.num_dead(),
        "experts.max_over_mean": log.max_over_mean(), "experts.entropy": log.entropy(), "parameters.total": total,
        "parameters.active": total - moe.config.num_hidden_layers * unused * one_expert,
        "tokens_per_second": sparse.fit.tokens_per_second,
    }
    if control:
        figures |= {"loss.dense.first": control.before, "loss.dense": control.after}
    for name, value in figures.items():
        stage.metric(name, value)
    if log.num_dead():
        stage.warn(f"{log.num_dead()} experts receive less than a tenth of a fair share; raise balance_coefficient")
    load = {str(layer): counts.tolist() for layer, counts in sorted(log.load.items())}
    (stage.out / "upcycle.json").write_text(json.dumps({**figures, "load": load}, indent=1), encoding="utf-8")
    lines = [f"| {name} | {value:.4g} |" for name, value in figures.items()]
    text = "# Upcycling\n\nHeld-out loss in nats per token; load on held-out text.\n\n| figure | value |\n|---|---|\n"
    (stage.out / "summary.md").write_text(text + "\n".join(lines) + "\n", encoding="utf-8")
