"""Continued training of one model on text, and its held-out loss before and after."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn
from transformers import PreTrainedModel

from qwenops.contracts.tokens import TokenShards
from qwenops.model.architecture import size_of
from qwenops.model.routing import RouterLog
from qwenops.platform.observe.progress import Progress
from qwenops.platform.stage.handle import Stage
from qwenops.training.batching import text_batch
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import Batches, FitCallbacks, FitResult, StepReport, fit
from qwenops.training.objective import mean_loss
from qwenops.training.parallel import WorkerRank
from qwenops.training.speed import ThroughputMeter
from qwenops.training.terms import Batch, Counts, MetricSums, Objective


@dataclass(frozen=True)
class ContinuedTraining:
    """Held-out loss before and after, nats per token, the training loop's account, and its speed."""

    before: float
    after: float
    fit: FitResult
    speed: dict[str, float]


def balanced_language_modelling(log: RouterLog, coefficient: float, text: Objective) -> Objective:
    """The objective `text` plus the load-balancing loss of the routers that `log` watches.

    The text's gradient does not depend on how a step is cut. The balancing loss multiplies two means over the tokens of
    one forward pass on one worker, so it asks for balance within each pass; the step's is the mean over its passes by
    their tokens, and other cuts give another gradient of this term.
    """

    def counts(batch: Batch) -> Counts:
        return {**text.counts(batch), "balance": float(batch["input_ids"].numel())}

    def means(model: nn.Module, batch: Batch) -> tuple[Mapping[str, Tensor], MetricSums]:
        found, _ = text.means(model, batch)
        balance, held = log.balance_loss(), counts(batch)
        plain = {**found, "balance": balance}
        figures = {name: (float(mean.detach()) * held[name], held[name]) for name, mean in plain.items()}
        return {**found, "balance": coefficient * balance}, figures

    return Objective(counts, means)


def spread_batches(shards: TokenShards, length: int, config: TrainingConfig, seed: int, place: WorkerRank) -> Batches:
    """Batches of packed text whose rows lie far apart in the stream.

    Neighbouring rows are often one document, and a small batch of them makes a noisy step. So row r of step s is row
    r * steps + s of the stream; every row is read once, and a resumed loop starts at any step.
    """
    rows = range(max(config.batch_tokens // length, 1))[place.rank :: place.world_size]

    def from_step(start: int) -> Iterator[Batch]:
        streams = [shards.packed("train", length + 1, seed, row * config.steps + start) for row in rows]
        for _ in range(start, config.steps):
            drawn = [next(stream) for stream in streams]
            documents = sorted({name for row in drawn for name in row.names})
            yield text_batch(np.stack([row.ids for row in drawn]), documents=documents)

    return from_step


def continue_training(
    model: PreTrainedModel,
    objective: Objective,
    batches: Batches,
    length: int,
    text: Sequence[Batch],
    config: TrainingConfig,
    *,
    name: str,
    stage: Stage,
    place: WorkerRank,
    progress: Progress,
) -> ContinuedTraining:
    """Score `model` on `text`, train it on rows of `length` and score it again; rank 0 reports under `name`."""
    speed = ThroughputMeter(size_of(model.config))

    def on_step(report: StepReport) -> None:
        loss = report.metrics.get("text", report.loss)
        stage.curve(f"loss.{name}", report.step, loss)
        for figure, value in speed.step(report, length).items():
            stage.curve(f"{figure}.{name}", report.step, value)
        progress.advance(report.tokens, f"{name} loss {loss:.3f}")

    def on_heldout(tokens: int) -> None:
        if place.rank == 0:
            progress.advance(tokens, f"{name} held-out text")

    before = mean_loss(model, text, on_heldout)
    hooks = FitCallbacks(on_step=on_step, on_event=stage.warn) if place.rank == 0 else FitCallbacks()
    result = fit(
        model,
        objective,
        batches,
        config,
        hooks=hooks,
        state_dir=stage.scratch / name,
        seed=stage.seed,
    )
    return ContinuedTraining(before, mean_loss(model, text, on_heldout), result, speed.metrics(result))
