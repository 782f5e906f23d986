"""The one training loop. Every stage that trains calls `fit` with its own objective and batches.

The loop owns what all of them need: rate, clipping, precision, gradient accumulation, the guard against
divergence, and a state to resume from that gives bitwise the weights of an uninterrupted run.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qwenops.errors import StageError
from qwenops.training.checkpoint import LoopState, load_state, save_state
from qwenops.training.config import TrainingConfig
from qwenops.training.optimizer import build_optimizer
from qwenops.training.parallel import global_sum, sum_gradients
from qwenops.training.precision import autocast
from qwenops.training.schedule import learning_rate

Batch = dict[str, Any]
Objective = Callable[[nn.Module, Batch], tuple[Tensor, dict[str, float]]]
Batches = Callable[[int], Iterator[Batch | Sequence[Batch]]]

_WINDOW = 8


@dataclass(frozen=True)
class StepReport:
    """What happened in one step.

    Attributes:
        step: 0-based.
        tokens: Tokens of this step.
        loss: Nats per token, averaged over the micro-batches.
        learning_rate: Rate of this step.
        gradient_norm: Global norm before clipping.
        facts: What the objective reported, averaged over the micro-batches.
    """

    step: int
    tokens: int
    loss: float
    learning_rate: float
    gradient_norm: float
    facts: dict[str, float]


@dataclass(frozen=True)
class FitHooks:
    """Calls out of the loop: `on_step` after every step, `on_resume(step, tokens)` when a saved state was found."""

    on_step: Callable[[StepReport], None] | None = None
    on_resume: Callable[[int, int], None] | None = None


@dataclass(frozen=True)
class FitResult:
    """Outcome of a whole loop, earlier processes of a resumed one included where not said otherwise.

    Attributes:
        steps: Steps finished.
        tokens: Tokens trained.
        seconds: Wall time of this process's part of the loop.
        tokens_per_second: Rate of this process's part.
        first_loss: Mean of the first steps' losses (at most 8).
        final_loss: Mean of the last steps' losses (at most 8).
        curve: Loss of every step.
    """

    steps: int
    tokens: int
    seconds: float
    tokens_per_second: float
    first_loss: float
    final_loss: float
    curve: tuple[float, ...] = field(repr=False)


def fit(
    model: nn.Module,
    objective: Objective,
    batches: Batches,
    config: TrainingConfig,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    hooks: FitHooks = FitHooks(),
    state_dir: Path | None = None,
    seed: int = 0,
) -> FitResult:
    """Train `model` for `config.steps` steps.

    Args:
        model: On the device it trains on, fp32 weights.
        objective: Maps (model, batch) to a scalar loss and a dict of figures to log; runs under autocast.
        batches: `batches(step)` yields the batches from that step on, always the same ones. A batch is a dict of
            CPU tensors with an int `num_tokens`, or a sequence of such dicts to accumulate over. Micro-batches
            count by `loss_weight` when they have one and by `num_tokens` otherwise.
        config: Steps, rates, optimiser, precision.
        optimizer: Replaces the one `config` describes; its rates still follow the schedule.
        hooks: Where each step is reported to.
        state_dir: Folder to resume from and to save into; None saves nothing.
        seed: Seeds torch before the first step.

    Raises:
        StageError: loss or gradient is not finite, the loss has exploded, or the batches ended early.
    """
    optimizer = optimizer or build_optimizer(model, config)
    torch.manual_seed(seed)
    state = load_state(state_dir, model, optimizer) if state_dir else LoopState()
    if state.step and hooks.on_resume:
        hooks.on_resume(state.step, state.tokens)
    model.train()
    stream = batches(state.step)
    began, tokens_before = time.perf_counter(), state.tokens
    while state.step < config.steps:
        batch = next(stream, None)
        if batch is None:
            raise StageError(
                f"the batches ended at step {state.step}",
                expected=f"{config.steps} steps of batches",
                found=state.step,
                action="give the loop an iterator that repeats its data",
            )
        micro = [batch] if isinstance(batch, dict) else list(batch)
        report = _train_step(model, objective, micro, config, optimizer, state.step)
        state.losses.append(report.loss)
        _refuse_divergence(state, config)
        state.step, state.tokens = state.step + 1, state.tokens + report.tokens
        if hooks.on_step:
            hooks.on_step(report)
        if state_dir and state.step % config.checkpoint_every_steps == 0 and state.step < config.steps:
            save_state(state_dir, model, optimizer, state)
    seconds = time.perf_counter() - began
    return FitResult(
        steps=state.step,
        tokens=state.tokens,
        seconds=seconds,
        tokens_per_second=(state.tokens - tokens_before) / max(seconds, 1e-9),
        first_loss=_mean(state.losses[:_WINDOW]),
        final_loss=_mean(state.losses[-_WINDOW:]),
        curve=tuple(state.losses),
    )


def _train_step(
    model: nn.Module,
    objective: Objective,
    micro: Sequence[Batch],
    config: TrainingConfig,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> StepReport:
    rate = learning_rate(config, step)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
    optimizer.zero_grad(set_to_none=True)
    loss_sum, facts = 0.0, dict[str, float]()
    weights = [float(batch.get("loss_weight", batch["num_tokens"])) for batch in micro]
    total_weight = global_sum(sum(weights))
    device = next(model.parameters()).device
    for batch, weight in zip(micro, weights, strict=True):
        share = weight / total_weight
        with autocast(model, config.precision):
            loss, figures = objective(model, _to(batch, device))
        (loss * share).backward()
        loss_sum += float(loss.detach()) * share
        for name, value in figures.items():
            facts[name] = facts.get(name, 0.0) + value * share
    sum_gradients(model)
    loss_sum = global_sum(loss_sum)
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm))
    if not (math.isfinite(loss_sum) and math.isfinite(norm)):
        raise StageError(
            f"training broke at step {step}",
            expected="a finite loss and gradient",
            found=f"loss {loss_sum}, gradient norm {norm}",
            action="lower the learning rate or look at this step's data",
        )
    optimizer.step()
    tokens = sum(int(batch["num_tokens"]) for batch in micro)
    return StepReport(step, tokens, loss_sum, rate, norm, facts)


def _refuse_divergence(state: LoopState, config: TrainingConfig) -> None:
    """Stop when the mean of the last steps is far above the first ones: single spikes pass, divergence does not."""
    if len(state.losses) < 2 * _WINDOW:
        return
    first, recent = _mean(state.losses[:_WINDOW]), _mean(state.losses[-_WINDOW:])
    if first > 0 and recent > config.spike_ratio * first:
        raise StageError(
            f"training diverged at step {state.step}",
            expected=f"loss below {config.spike_ratio} times its start of {first:.3f}",
            found=f"{recent:.3f} over the last {_WINDOW} steps",
            action="lower the learning rate or raise warmup_steps",
        )


def _to(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value for key, value in batch.items()
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
