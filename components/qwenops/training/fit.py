"""The one training loop. Every stage that trains calls `fit` with its own objective and batches.

The loop owns what all of them need: rate, clipping, precision, gradient accumulation, the guard against
divergence, and a state to resume from that gives bitwise the weights of an uninterrupted run.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qwenops.errors import StageError
from qwenops.model import documents
from qwenops.training import preemption
from qwenops.training.accumulate import split_by_tokens
from qwenops.training.checkpoint import Checkpoints, LoopState
from qwenops.training.config import TrainingConfig, check_attention
from qwenops.training.guard import (
    WINDOW,
    find_divergence,
    find_fault,
    finite_mean,
    nonfinite_error,
    num_skipped_in_a_row,
)
from qwenops.training.optimizer import build_optimizer
from qwenops.training.parallel import (
    all_gather_metrics,
    all_reduce_gradients,
    all_reduce_sums,
    barrier_seconds,
    clip_gradients,
    context_parallel_size,
    local_part,
    worker_rank,
)
from qwenops.training.precision import autocast
from qwenops.training.recompute import decoder_layers, recompute_layers
from qwenops.training.schedule import learning_rate
from qwenops.training.terms import Batch, Counts, MetricSums, Objective, add_metric_sums

_LOG = logging.getLogger(__name__)

Batches = Callable[[int], Iterator[Batch | Sequence[Batch]]]


@dataclass(frozen=True)
class StepReport:
    """What happened in one step.

    Attributes:
        step: 0-based.
        tokens: Tokens of this step, of all workers.
        loss: The objective's loss of the whole step; nats per target for text.
        learning_rate: Rate of this step.
        gradient_norm: Global norm before clipping.
        metrics: What the objective reported, over the whole step.
        seconds: Wall time, its batch and the checkpoint before it included.
        waited_seconds: Longest time that a worker, its batch at hand, waited for the slowest to begin the step.
        fault: Why the step was skipped; empty for a step that changed the weights.
    """

    step: int
    tokens: int
    loss: float
    learning_rate: float
    gradient_norm: float
    metrics: dict[str, float]
    seconds: float
    waited_seconds: float
    fault: str = ""


@dataclass(frozen=True)
class FitCallbacks:
    """Calls out of the loop.

    Attributes:
        on_step: After every step that changed the weights.
        on_resume: `on_resume(step, tokens)` when a saved state was found.
        on_event: On rank 0 with a sentence when a step is skipped, weights go back or a checkpoint is damaged; by
            default a line of the log.
    """

    on_step: Callable[[StepReport], None] | None = None
    on_resume: Callable[[int, int], None] | None = None
    on_event: Callable[[str], None] = _LOG.warning


@dataclass(frozen=True)
class FitResult:
    """Outcome of a whole loop, earlier processes of a resumed one included where not said otherwise.

    Attributes:
        steps: Steps finished.
        tokens: Tokens trained.
        seconds: Wall time of this process's part of the loop.
        tokens_per_second: Rate of this process's part.
        first_loss: Mean of the first steps' losses (8, or half of those there are).
        final_loss: Mean of the last steps' losses (as many).
        curve: Loss of every step; not a number where a step was skipped.
        skipped: Steps that were skipped.
        rollbacks: Times the weights went back to a checkpoint.
    """

    steps: int
    tokens: int
    seconds: float
    tokens_per_second: float
    first_loss: float
    final_loss: float
    curve: tuple[float, ...] = field(repr=False)
    skipped: tuple[int, ...] = ()
    rollbacks: int = 0


def fit(
    model: nn.Module,
    objective: Objective,
    batches: Batches,
    config: TrainingConfig,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    hooks: FitCallbacks = FitCallbacks(),
    state_dir: Path | None = None,
    seed: int = 0,
) -> FitResult:
    """Train `model` for `config.steps` steps.

    Args:
        model: On the device it trains on, fp32 weights.
        objective: What to minimise; runs under autocast.
        batches: `batches(step)` yields the batches from that step on, always the same ones. A batch is a dict of
            CPU tensors with an int `num_tokens`, or a sequence of such dicts to accumulate over.
        config: Steps, rates, optimiser, precision.
        optimizer: Replaces the one `config` describes; its rates still follow the schedule.
        hooks: Where each step is reported to.
        state_dir: Folder to resume from and to save into; None saves nothing.
        seed: Seeds torch before the first step.

    Raises:
        StageError: the loss or gradient stays broken or the loss far above its start, and going back to a checkpoint
            does not help or there is none; or the batches ended early.
        RecipeError: `micro_batch_tokens` is set for batches that cannot be split, or attention by document for rows
            that several workers share.
    """
    optimizer = optimizer or build_optimizer(model, config)
    torch.manual_seed(seed)
    if config.recompute != "none":
        recompute_layers(model, config.recompute)
    if config.attention == "by_document":
        check_attention(config.attention, context_parallel_size())
        for module in model.modules():
            if isinstance(module, PreTrainedModel):
                module.set_attn_implementation(documents.NAME)
    if config.compile == "layers":
        compile_layers(model)
    checkpoints = Checkpoints(state_dir, config.keep_checkpoints, hooks.on_event) if state_dir else None
    try:
        with preemption.loop_running():
            return _run(model, objective, batches, config, optimizer, hooks, checkpoints)
    finally:
        if checkpoints:
            checkpoints.close()


def _run(
    model: nn.Module,
    objective: Objective,
    batches: Batches,
    config: TrainingConfig,
    optimizer: torch.optim.Optimizer,
    hooks: FitCallbacks,
    checkpoints: Checkpoints | None,
) -> FitResult:
    state = (checkpoints.restore(model, optimizer) if checkpoints else None) or LoopState()
    if state.step and hooks.on_resume:
        hooks.on_resume(state.step, state.tokens)
    model.train()
    stream = batches(state.step)
    began = last = time.perf_counter()
    tokens_before = state.tokens
    while state.step < config.steps:
        batch = next(stream, None)
        if batch is None:
            raise StageError(
                f"the batches ended at step {state.step}",
                expected=f"{config.steps} steps of batches",
                found=state.step,
                action="give the loop an iterator that repeats its data",
            )
        micro = split_micro_batches(batch, config)
        report, local_loss = _train_step(model, objective, micro, config, optimizer, state, last)
        last = time.perf_counter()
        _account(state, report, hooks)
        _go_back_if_broken(model, optimizer, config, state, hooks, checkpoints, report, (local_loss, micro))
        due = state.step % config.checkpoint_every_steps == 0 and state.step < config.steps
        notices = preemption.pending_notices()
        # In a series of bad steps the weights may be what is bad.
        if checkpoints and (due or notices) and not report.fault:
            checkpoints.save(model, optimizer, state)
        for notice in notices:
            if checkpoints:
                checkpoints.wait()
            notice.acknowledge()
    seconds = time.perf_counter() - began
    finite_losses = [loss for loss in state.losses if math.isfinite(loss)]
    window = min(WINDOW, max(len(finite_losses) // 2, 1))
    return FitResult(
        steps=state.step,
        tokens=state.tokens,
        seconds=seconds,
        tokens_per_second=(state.tokens - tokens_before) / max(seconds, 1e-9),
        first_loss=finite_mean(finite_losses[:window]),
        final_loss=finite_mean(finite_losses[-window:]),
        curve=tuple(state.losses),
        skipped=tuple(state.skipped),
        rollbacks=state.rollbacks,
    )


def compile_layers(model: nn.Module) -> None:
    """Compile every decoder layer in `model` in place.

    The layers share one graph, and a second one with symbolic sizes serves every other shape, so that phases of
    several lengths do not compile without end.
    """
    for layer in decoder_layers(model):
        layer.compile()


def split_micro_batches(batch: Batch | Sequence[Batch], config: TrainingConfig) -> Sequence[Batch]:
    """A step's forward passes; a stream that gives several batches a step has cut it itself, as pairs must be."""
    if not isinstance(batch, dict):
        return [local_part(part) for part in batch]
    whole = local_part(batch)
    return split_by_tokens(whole, config.micro_batch_tokens) if config.micro_batch_tokens else [whole]


def _train_step(
    model: nn.Module,
    objective: Objective,
    micro: Sequence[Batch],
    config: TrainingConfig,
    optimizer: torch.optim.Optimizer,
    state: LoopState,
    began: float,
) -> tuple[StepReport, float]:
    """One step, and this worker's own part of its loss; a step with a fault changes nothing."""
    waited = barrier_seconds()
    rate = learning_rate(config, state.step)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
    optimizer.zero_grad(set_to_none=True)
    local_loss, figures = 0.0, list[MetricSums]()
    device = next(model.parameters()).device
    for batch, shares in zip(micro, _shares(objective, micro), strict=True):
        with autocast(model, config.precision):
            loss, found = objective(model, _to(batch, device), shares)
        loss.backward()
        local_loss += float(loss.detach())
        figures.append(found)
    all_reduce_gradients(model)
    loss_sum, tokens = all_reduce_sums([local_loss, sum(int(batch["num_tokens"]) for batch in micro)])
    sums = all_gather_metrics(add_metric_sums(figures))
    facts = {name: total / count for name, (total, count) in sums.items() if count}
    norm = clip_gradients(model, config.clip_norm)
    fault = find_fault(config, state, loss_sum, norm)
    if not fault:
        optimizer.step()
    seconds = time.perf_counter() - began
    return StepReport(state.step, round(tokens), loss_sum, rate, norm, facts, seconds, waited, fault), local_loss


def _shares(objective: Objective, micro: Sequence[Batch]) -> list[Counts]:
    """What part of each term of the step, over all workers, every micro-batch of this worker holds."""
    counts = [objective.counts(batch) for batch in micro]
    names = list(counts[0])
    totals = dict(zip(names, all_reduce_sums([sum(own[name] for own in counts) for name in names]), strict=True))
    return [{name: own[name] / totals[name] if own[name] else 0.0 for name in names} for own in counts]


def _account(state: LoopState, report: StepReport, hooks: FitCallbacks) -> None:
    """Move the counters past this step and report it."""
    state.step += 1
    if report.fault:
        state.losses.append(float("nan"))
        state.skipped.append(report.step)
        if worker_rank().rank == 0:
            hooks.on_event(f"step {report.step} was skipped: {report.fault}")
        return
    state.losses.append(report.loss)
    state.tokens += report.tokens
    if hooks.on_step:
        hooks.on_step(report)


def _go_back_if_broken(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: TrainingConfig,
    state: LoopState,
    hooks: FitCallbacks,
    checkpoints: Checkpoints | None,
    report: StepReport,
    own: tuple[float, Sequence[Batch]],
) -> None:
    """Restore the last checkpoint's weights and optimiser after a series of skips or a divergence.

    The counters go on: the batches since that checkpoint are left out. The random states go on as well.
    """
    divergence = "" if report.fault else find_divergence(config, state)
    in_a_row = num_skipped_in_a_row(state) if report.fault else 0
    if not divergence and in_a_row <= config.max_skips:
        return
    before = None
    if checkpoints and state.rollbacks < config.max_rollbacks:
        before = checkpoints.restore(model, optimizer, random=False)
    if before is None:
        raise _diverged(report.step, divergence) if divergence else nonfinite_error(report.step, report.fault, *own)
    state.rollbacks, state.rolled_back_at = state.rollbacks + 1, state.step
    # The losses since then belong to weights that are gone; the steps still happened.
    state.losses[before.step :] = [float("nan")] * (state.step - before.step)
    if worker_rank().rank == 0:
        reason = divergence or f"{in_a_row} steps in a row were skipped"
        hooks.on_event(f"weights of step {before.step} restored before step {state.step}: {reason}")


def _diverged(step: int, found: str) -> StageError:
    return StageError(
        f"training diverged at step {step}",
        expected="a loss near or below its start",
        found=found,
        action="lower the learning rate or raise warmup_steps",
    )


def _to(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value for key, value in batch.items()
    }
