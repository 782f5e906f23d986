"""Run an alignment stage's work on Ray Train's workers, and `fit` in it: progress, curves, threads, resuming."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qwenops.contracts.checkpoint import read_facts
from qwenops.model.checkpoints import save_checkpoint
from qwenops.platform.ray.train import launch
from qwenops.platform.stage.handle import Stage
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import Batches, FitCallbacks, FitResult, StepReport, fit
from qwenops.training.parallel import worker_rank
from qwenops.training.terms import Objective
from qwenops.training.threads import tune_training_threads


def run_on_workers(
    stage: Stage, work: Callable[..., None], *, most_workers: int | None = None, **arguments: Any
) -> None:
    """Run `work(stage=stage, **arguments)` on every worker of the stage's context and take over what it recorded.

    Rank 0 writes into `stage.out`; what the others write goes to a folder of their own that is thrown away, so that
    `work` need not know its rank.

    Args:
        stage: Where to report.
        work: A module-level function.
        most_workers: Upper bound of the workers, for work that cannot be shared.
        arguments: Handed on to `work`.
    """
    context = stage.context
    if most_workers is not None:
        context = replace(context, num_workers=min(context.num_workers, most_workers))
    job = {"work": work, "stage": stage, "arguments": arguments}
    report = launch(_work, job, context, stage.node, stage.scratch / "ray")
    stage.metrics, stage.counts = report["metrics"], report["counts"]
    stage.records, stage.warnings = report["records"], report["warnings"]


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
    tune_training_threads(stage.scratch / "threads", model, objective, batches, config)
    with stage.progress(config.steps, "steps") as progress:

        def on_step(report: StepReport) -> None:
            progress.advance(1, f"{name} loss {report.loss:.3f}")
            if report.step % curve_every_steps == 0 or report.step == config.steps - 1:
                _record(stage, name, report)

        hooks = FitCallbacks(on_step=on_step, on_resume=lambda step, _: progress.resume_at(step), on_event=stage.warn)
        result = fit(
            model,
            objective,
            batches,
            config,
            optimizer=optimizer,
            hooks=hooks,
            state_dir=stage.scratch / name,
            seed=stage.seed,
        )
    model.eval()
    return result


def save_chat_checkpoint(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stage: Stage, start: Path, tokens: int, length: int = 0
) -> None:
    """Write what alignment made of the checkpoint in `start` into `stage.out`, as a chat model.

    Args:
        model: The trained weights.
        tokenizer: Of `start`.
        stage: Names the folder.
        start: The checkpoint that training started from, whose name is kept and whose tokens count on.
        tokens: Tokens trained since.
        length: Longest row trained on, where that may exceed the context of `start`.
    """
    facts = read_facts(start)
    context, seen = max(facts.context_length_tokens, length), facts.tokens_seen + tokens
    save_checkpoint(model, tokenizer, stage.out, context, seen, start.name, kind="chat")


def _work(job: dict[str, Any]) -> dict[str, Any]:
    stage: Stage = job["stage"]
    rank = worker_rank().rank
    if rank:
        stage = replace(stage, out=stage.scratch / f"worker-{rank}")
        stage.out.mkdir(parents=True, exist_ok=True)
    job["work"](stage=stage, **job["arguments"])
    return {"metrics": stage.metrics, "counts": stage.counts, "records": stage.records, "warnings": stage.warnings}


def _record(stage: Stage, name: str, report: StepReport) -> None:
    stage.curve(f"loss.{name}", report.step, report.loss)
    stage.curve(f"learning_rate.{name}", report.step, report.learning_rate)
    stage.curve(f"gradient_norm.{name}", report.step, report.gradient_norm)
    for fact, value in report.metrics.items():
        stage.curve(f"{fact}.{name}", report.step, value)
