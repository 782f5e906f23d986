"""Extend the context: change the RoPE base, train on longer rows, measure both lengths before and after."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from qwenops.contracts.checkpoint import CheckpointFacts, read_facts
from qwenops.contracts.tokens import TokenShards
from qwenops.errors import ContractError
from qwenops.model.checkpoints import load_model, load_tokenizer, save_checkpoint
from qwenops.model.rope import change_base
from qwenops.platform.ray.train import launch
from qwenops.platform.stage.handle import Stage
from qwenops.pretraining.document_lengths import length_histogram, long_share, mix_histograms
from qwenops.pretraining.extend.config import ExtendConfig
from qwenops.pretraining.held_out import bits_per_byte, evaluation_progress, held_out_needles, language_rows, text_rows
from qwenops.pretraining.phases import row_divisor
from qwenops.pretraining.rows import RowSource
from qwenops.pretraining.summary import write_summary
from qwenops.pretraining.train import gather_full_model, train, tune_worker_threads
from qwenops.tasks.needles import NeedleRows, evaluate_needles
from qwenops.training.objective import loss_by_position, mean_loss
from qwenops.training.parallel import apply_parallelism, data_parallel_rank, worker_rank

_STRETCHES = 32


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
    facts, model, device = read_facts(job["checkpoint"]), load_model(job["checkpoint"]), worker_rank()
    model.to(device.kind)  # type: ignore[arg-type]
    length = config.phases[-1].length
    extends = length > facts.context_length_tokens
    short = min(facts.context_length_tokens, length)
    if not extends and device.rank == 0:
        stage.warn(_continuation(config, facts))
    long_tokens = config.long_tokens or short
    usual, long = length_histogram(shards), length_histogram(shards, long_tokens)
    share = config.long_share
    if share and not long and not extends:
        share = 0.0
        if device.rank == 0:
            stage.warn(f"no training document has {long_tokens} tokens: the rows hold documents of every length")
    if share and not long:
        raise ContractError(
            "there are no long documents to extend with",
            expected=f"training documents of at least {long_tokens} tokens",
            found=max((int(lengths.max()) for lengths in shards.lengths("train").values()), default=0),
            action="add longer sources, lower extend.long_tokens or set extend.long_share to 0",
        )
    text, short_text = (text_rows(shards, tokens, config.evaluation_tokens) for tokens in (length, short))
    needles = _needles(config, shards, tokenizer, (length, short))
    apply_parallelism(model, stage.context.parallel, row_divisor(config.phases))
    rows_of = data_parallel_rank()
    source = RowSource(
        shards,
        tokenizer,
        config.phases,
        config.practice,
        config.training.batch_tokens,
        stage.seed,
        rows_of.rank,
        rows_of.world_size,
        share,
        long_tokens,
    )
    threads = tune_worker_threads(model, source, config.training, stage)
    # Before: the old base at the new length. First: the new base, untrained; it costs retrieval until trained.
    with evaluation_progress(stage, "before", text, short_text, *needles.values()) as on_tokens:
        positions = {"before": loss_by_position(model, text, on_tokens)}
        metrics = {"loss.short.before": mean_loss(model, short_text, on_tokens)}
        for name, made in needles.items():
            metrics[f"needle.accuracy.{name}_before"] = evaluate_needles(model, made, on_tokens=on_tokens).accuracy
    if extends:
        change_base(model, config.rope_theta, length)
    with evaluation_progress(stage, "at the new base" if extends else "at its own base", text) as on_tokens:
        positions["first"] = loss_by_position(model, text, on_tokens)
    trained, speed = train(model, source, config.training, stage)
    metrics |= {"threads": threads} | speed
    languages, by_depth = language_rows(shards, length, config.evaluation_tokens), {}
    read = (text, short_text, *(language.batches for language in languages.values()), *needles.values())
    with evaluation_progress(stage, "after", *read) as on_tokens:
        positions["final"] = loss_by_position(model, text, on_tokens)
        metrics["loss.short.final"] = mean_loss(model, short_text, on_tokens)
        metrics |= bits_per_byte(model, languages, on_tokens)
        if needles:
            score = evaluate_needles(model, needles["long"], on_tokens=on_tokens)
            metrics |= {"needle.accuracy": score.accuracy, "needle.count": score.count}
            metrics["needle.accuracy.short"] = evaluate_needles(model, needles["short"], on_tokens=on_tokens).accuracy
            by_depth = score.by_depth
    for name, losses in positions.items():
        metrics[f"loss.{name}"] = float(losses.mean())
        if extends:
            metrics[f"loss.beyond.{name}"] = float(losses[short:].mean())
    in_corpus = long_share(shards, long_tokens)
    metrics["long_share.corpus"] = in_corpus
    metrics["long_share.trained"] = share + (1 - share) * in_corpus
    seen = trained.tokens
    finished = gather_full_model(model)
    if device.rank == 0:
        for name, losses in positions.items():
            _draw(stage, f"position_loss.{name}", losses)
        lengths = {"corpus": usual, "trained": mix_histograms(usual, long, share)}
        (stage.out / "document_lengths.json").write_text(json.dumps(lengths, indent=1), encoding="utf-8")
        context = max(length, facts.context_length_tokens)
        save_checkpoint(
            finished, tokenizer, stage.out, context, facts.tokens_seen + seen, parent=Path(job["checkpoint"]).name
        )
    return {"metrics": metrics, "tokens": seen, "by_depth": by_depth}


def _continuation(config: ExtendConfig, facts: CheckpointFacts) -> str:
    text = (
        f"nothing to extend: the checkpoint reads {facts.context_length_tokens} tokens and extend.phases end at "
        f"{config.phases[-1].length}; it trains on at its own length and its own RoPE base of {facts.rope_theta:g}"
    )
    other = config.rope_theta != facts.rope_theta
    return f"{text}, not at extend.rope_theta {config.rope_theta:g}" if other else text


def _draw(stage: Stage, name: str, losses: Tensor) -> None:
    """A curve over the places of a row, each point the mean of a stretch that ends there."""
    end = 0
    for stretch in losses.tensor_split(_STRETCHES):
        end += len(stretch)
        stage.curve(name, end, float(stretch.mean()))


def _needles(
    config: ExtendConfig, shards: TokenShards, tokenizer: Any, lengths: tuple[int, int]
) -> dict[str, NeedleRows]:
    if not config.evaluation_needles:
        return {}
    return {
        name: held_out_needles(shards, tokenizer, length, config.evaluation_needles)
        for name, length in zip(("long", "short"), lengths, strict=True)
    }
