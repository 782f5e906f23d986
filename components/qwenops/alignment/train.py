"""Run `fit` for an alignment stage: progress, curves, thread count, a state to resume from."""

from collections.abc import Mapping

import torch
from torch import nn

from qwenops.platform.stage import Stage
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import Batches, FitHooks, FitResult, Objective, StepReport, autocast, fit
from qwenops.training.threads import remembered_threads


def train(
    stage: Stage,
    name: str,
    model: nn.Module,
    objective: Objective,
    batches: Batches,
    config: TrainingConfig,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    curve_every_steps: int = 1,
) -> FitResult:
    """Train `model`, reporting to `stage` under `name`.

    Args:
        stage: Gives the seed, the progress display, the curves and the scratch folder.
        name: Names the curves (`loss.<name>`) and the state to resume from; unique in the stage.
        model: Trained in place; left in evaluation mode.
        objective: As for `fit`.
        batches: As for `fit`.
        config: As for `fit`.
        optimizer: As for `fit`.
        curve_every_steps: Steps between the points of the curves.
    """
    remembered_threads(stage.scratch / "threads", lambda: _probe(model, objective, batches, config))
    with stage.progress(config.steps, "steps") as progress:

        def on_step(report: StepReport) -> None:
            progress.advance(1, f"{name} loss {report.loss:.3f}")
            if report.step % curve_every_steps == 0 or report.step == config.steps - 1:
                _record(stage, name, report)

        hooks = FitHooks(on_step=on_step, on_resume=lambda step, _: progress.advance(step, "resumed"))
        result = fit(
            model, objective, batches, config, optimizer=optimizer, hooks=hooks, state_dir=stage.scratch / name,
            seed=stage.seed,
        )
    model.eval()
    return result


def record_pass_rates(stage: Stage, prefix: str, rates: Mapping[str, float]) -> None:
    """Record `rates` under `prefix` ("pass_rate" or "control.pass_rate"); the key "" stands for the prefix itself."""
    for name, value in rates.items():
        stage.metric(f"{prefix}.{name}" if name else prefix, value)


def _record(stage: Stage, name: str, report: StepReport) -> None:
    stage.curve(f"loss.{name}", report.step, report.loss)
    stage.curve(f"learning_rate.{name}", report.step, report.learning_rate)
    stage.curve(f"gradient_norm.{name}", report.step, report.gradient_norm)
    for fact, value in report.facts.items():
        stage.curve(f"{fact}.{name}", report.step, value)


def _probe(model: nn.Module, objective: Objective, batches: Batches, config: TrainingConfig) -> None:
    """One forward and backward pass, whose gradients are thrown away: what the thread count is measured with."""
    batch = next(batches(0))
    first = batch if isinstance(batch, dict) else batch[0]
    with autocast(model, config.precision):
        loss, _ = objective(model, first)
    loss.backward()
    model.zero_grad(set_to_none=True)
