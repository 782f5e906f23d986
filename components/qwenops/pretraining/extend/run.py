"""Extend the context: change the RoPE base, train on longer rows, measure both lengths before and after."""

from pathlib import Path
from typing import Any

from qwenops.contracts.checkpoint import read_facts
from qwenops.contracts.tokens import TokenShards
from qwenops.errors import RecipeError
from qwenops.model.checkpoints import load_model, load_tokenizer, save_checkpoint
from qwenops.model.rope import change_base
from qwenops.platform.ray_train import launch
from qwenops.platform.stage import Stage
from qwenops.pretraining.extend.config import ExtendConfig
from qwenops.pretraining.held_out import bits_per_byte, held_out_needles, language_rows, shown, text_rows
from qwenops.pretraining.phases import row_divisor
from qwenops.pretraining.rows import RowSource
from qwenops.pretraining.summary import write_summary
from qwenops.pretraining.train import settle_threads, train, unsharded
from qwenops.tasks.needles import NeedleRows, evaluate_needles
from qwenops.training.objective import mean_loss
from qwenops.training.parallel import place, row_place, shard, token_workers


def run(config: ExtendConfig, *, tokens: Path, tokenizer: Path, checkpoint: Path, stage: Stage) -> None:
    """Train `checkpoint` on longer rows; write a checkpoint folder, curves and a summary into `stage.out`."""
    report = launch(
        extend_loop,
        {"config": config, "tokens": tokens, "tokenizer": tokenizer, "checkpoint": checkpoint, "stage": stage},
        stage.context,
        stage.node,
        stage.scratch / "ray",
    )
    for name, value in report["metrics"].items():
        stage.metric(name, value)
    stage.records = report["tokens"]
    write_summary(stage.out, "Context extension", report["metrics"], report["by_depth"])


def extend_loop(job: dict[str, Any]) -> dict[str, Any]:
    """What every Ray Train worker runs: load, change the base, train, evaluate; rank 0 saves."""
    config, stage = job["config"], job["stage"]
    shards, tokenizer = TokenShards(job["tokens"]), load_tokenizer(job["tokenizer"])
    facts, model, device = read_facts(job["checkpoint"]), load_model(job["checkpoint"]), place()
    model.to(device.kind)  # type: ignore[arg-type]
    short, length = facts.context_length_tokens, config.phases[-1].length
    if length <= short:
        raise RecipeError(
            "the extension does not extend",
            expected=f"extend.phases to end above {short} tokens",
            found=length,
            action="raise extend.phases or shorten pretrain.phases",
        )
    text, short_text = (text_rows(shards, tokens, config.evaluation_tokens) for tokens in (length, short))
    needles = _needles(config, shards, tokenizer, (length, short))
    shard(model, stage.context.parallel, row_divisor(config.phases))
    rows_of = row_place()
    source = RowSource(
        shards,
        tokenizer,
        config.phases,
        config.practice,
        config.training.batch_tokens,
        stage.seed,
        rows_of.rank,
        rows_of.world_size,
    )
    threads = settle_threads(model, source, config.training, stage)
    # Before: the old base at the new length. First: the new base, untrained; it costs retrieval until trained.
    with shown(stage, "before", text, short_text, *needles.values()) as on_tokens:
        metrics = {
            "loss.before": mean_loss(model, text, on_tokens),
            "loss.short.before": mean_loss(model, short_text, on_tokens),
        }
        for name, made in needles.items():
            metrics[f"needle.accuracy.{name}_before"] = evaluate_needles(model, made, on_tokens=on_tokens).accuracy
    change_base(model, config.rope_theta, length)
    with shown(stage, "at the new base", text) as on_tokens:
        metrics["loss.first"] = mean_loss(model, text, on_tokens)
    trained, speed = train(model, source, config.training, stage)
    metrics |= {"threads": threads} | speed
    languages, by_depth = language_rows(shards, length, config.evaluation_tokens), {}
    read = (text, short_text, *(language.batches for language in languages.values()), *needles.values())
    with shown(stage, "after", *read) as on_tokens:
        metrics["loss.final"] = mean_loss(model, text, on_tokens)
        metrics["loss.short.final"] = mean_loss(model, short_text, on_tokens)
        metrics |= bits_per_byte(model, languages, on_tokens)
        if needles:
            score = evaluate_needles(model, needles["long"], on_tokens=on_tokens)
            metrics |= {"needle.accuracy": score.accuracy, "needle.count": score.count}
            metrics["needle.accuracy.short"] = evaluate_needles(model, needles["short"], on_tokens=on_tokens).accuracy
            by_depth = score.by_depth
    seen = trained.tokens * token_workers()
    finished = unsharded(model)
    if device.rank == 0:
        save_checkpoint(
            finished, tokenizer, stage.out, length, facts.tokens_seen + seen, parent=Path(job["checkpoint"]).name
        )
    return {"metrics": metrics, "tokens": seen, "by_depth": by_depth}


def _needles(
    config: ExtendConfig, shards: TokenShards, tokenizer: Any, lengths: tuple[int, int]
) -> dict[str, NeedleRows]:
    if not config.evaluation_needles:
        return {}
    return {
        name: held_out_needles(shards, tokenizer, length, config.evaluation_needles)
        for name, length in zip(("long", "short"), lengths, strict=True)
    }
