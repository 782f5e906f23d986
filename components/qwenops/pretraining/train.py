"""Run `fit` for pretrain and extend: thread count, progress, curves, a state to resume from."""

from dataclasses import replace

import torch
from torch import nn
from transformers import PreTrainedModel

from qwenops.model.architecture import size_of
from qwenops.platform.stage.handle import Stage
from qwenops.pretraining.phases import Phase
from qwenops.pretraining.rows import RowSource
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import FitCallbacks, FitResult, StepReport, fit
from qwenops.training.objective import language_modelling, text_objective
from qwenops.training.parallel import full_state_dict, is_distributed, is_sharded, worker_rank
from qwenops.training.speed import ThroughputMeter
from qwenops.training.threads import tune_training_threads

_TRIED_LENGTH = 1024


def tune_worker_threads(model: nn.Module, source: RowSource, config: TrainingConfig, stage: Stage) -> int:
    """Set and return the CPU threads of a worker that trains alone: before it measures anything with fewer.

    They are chosen on short rows: one pass of a long context takes as long as a step of it does.
    """
    if is_distributed():
        return torch.get_num_threads()
    length = min(max(phase.length for phase in source.phases), _TRIED_LENGTH)
    short = replace(source, phases=(Phase(length=length, steps=1),))
    return tune_training_threads(stage.scratch / "threads", model, language_modelling, short.batches(), config)


def train(
    model: PreTrainedModel, source: RowSource, config: TrainingConfig, stage: Stage
) -> tuple[FitResult, dict[str, float]]:
    """Train `model` in place on `source`; only rank 0 reports to `stage`. Returns the loop's result and its speed."""
    batches, speed = source.batches(), ThroughputMeter(size_of(model.config))
    leader = worker_rank().rank == 0
    with stage.progress(source.batch_tokens * source.steps, "tokens") as progress:

        def on_resume(_: int, tokens: int) -> None:
            progress.resume_at(tokens)

        def on_step(report: StepReport) -> None:
            progress.advance(report.tokens, f"loss {report.loss:.3f}")
            stage.curve("loss", report.step, report.loss)
            stage.curve("learning_rate", report.step, report.learning_rate)
            stage.curve("gradient_norm", report.step, report.gradient_norm)
            for name, value in (*report.metrics.items(), *speed.step(report, source.length_at(report.step)).items()):
                stage.curve(name, report.step, value)

        hooks = FitCallbacks(on_step=on_step, on_resume=on_resume, on_event=stage.warn) if leader else FitCallbacks()
        result = fit(
            model,
            text_objective(config),
            batches,
            config,
            hooks=hooks,
            state_dir=stage.scratch / "state",
            seed=stage.seed,
        )
    model.eval()
    return result, speed.metrics(result)


def gather_full_model(model: PreTrainedModel) -> PreTrainedModel:
    """`model` itself, or on rank 0 a copy with whole weights when they are sharded. Every worker must call it."""
    if not is_sharded(model):
        return model
    state = full_state_dict(model)
    with torch.device("meta"):
        copy = type(model)(model.config)
    copy.load_state_dict(state, assign=True, strict=False)
    copy.tie_weights()
    return copy
