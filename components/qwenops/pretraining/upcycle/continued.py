"""Continued training of one model on text, and its held-out loss before and after."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qwenops.contracts.tokens import TokenShards
from qwenops.model.routing import RouterLog
from qwenops.training.batching import text_batch
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import Batch, Batches, FitHooks, FitResult, Objective, StepReport, fit
from qwenops.training.objective import language_modelling, mean_loss

_ROWS_PER_BATCH = 8


@dataclass(frozen=True)
class Outcome:
    """Held-out loss before and after, nats per token, and the training loop's account."""

    before: float
    after: float
    fit: FitResult


def balanced_language_modelling(log: RouterLog, coefficient: float) -> Objective:
    """Text loss plus the load-balancing loss of the routers that `log` watches."""

    def objective(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        loss, _ = language_modelling(model, batch)
        balance = log.balance_loss()
        return loss + coefficient * balance, {"text": float(loss.detach()), "balance": float(balance.detach())}

    return objective


def heldout_batches(shards: TokenShards, length: int, num_tokens: int, seed: int) -> list[Batch]:
    """The first rows of held-out text, together about `num_tokens` targets."""
    packed = shards.packed("heldout", length + 1, seed)
    rows = [next(packed)[0] for _ in range(max(num_tokens // length, 1))]
    return [text_batch(np.stack(rows[i : i + _ROWS_PER_BATCH])) for i in range(0, len(rows), _ROWS_PER_BATCH)]


def continue_training(
    model: PreTrainedModel, objective: Objective, batches: Batches, heldout: Sequence[Batch], config: TrainingConfig, *,
    on_step: Callable[[StepReport], None], state_dir: Path, seed: int,
) -> Outcome:
    """Score, train with `fit` and score again; on one batch order for any model."""
    before = mean_loss(model, heldout)
    result = fit(model, objective, batches, config, hooks=FitHooks(on_step=on_step), state_dir=state_dir, seed=seed)
    return Outcome(before, mean_loss(model, heldout), result)


@torch.inference_mode()
def measure_load(model: PreTrainedModel, log: RouterLog, heldout: Sequence[Batch]) -> None:
    """Fill `log.load` with the experts' load on held-out text alone."""
    log.reset_load()
    mean_loss(model, heldout)
