"""What a training loop minimises: a sum of terms, each a mean over things of its own kind (targets, pairs, responses).

A step is cut into forward passes and over workers, and a mean of means is the mean only where all count alike. A batch
with a third of a step's pairs may hold half of the tokens of their chosen responses. So an objective says how much of
each term a batch holds before anything is computed; the loop adds this up over the whole step, and every term of a
pass counts by its own share. The gradient of a step is then the same however it is cut.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Batch = dict[str, Any]
Counts = Mapping[str, float]
MetricSums = Mapping[str, tuple[float, float]]
IGNORE_INDEX = -100


@dataclass(frozen=True)
class Objective:
    """Maps (model, batch) to a scalar loss and figures to log, pairs (sum, count) that are divided once they are added.

    Attributes:
        counts: How much of every term a batch holds, from the batch alone; 0 of a term that it lacks. The names are
            the same for every batch.
        means: Every term's mean over what the batch holds, as it enters the loss, and the figures. A term of which the
            batch holds nothing may be left out.
    """

    counts: Callable[[Batch], Counts]
    means: Callable[[nn.Module, Batch], tuple[Mapping[str, Tensor], MetricSums]]

    def __call__(self, model: nn.Module, batch: Batch, shares: Counts | None = None) -> tuple[Tensor, MetricSums]:
        """What `batch` adds to the loss of its step.

        Args:
            model: What is trained.
            batch: On the model's device.
            shares: Part of each term of the step that `batch` holds; by default it is the whole step.
        """
        means, figures = self.means(model, batch)
        parts = [mean if shares is None else mean * shares[name] for name, mean in means.items()]
        return sum(parts[1:], parts[0]), figures


def add_metric_sums(every: Iterable[MetricSums]) -> dict[str, tuple[float, float]]:
    """Sums and counts added up by name."""
    found: dict[str, tuple[float, float]] = {}
    for figures in every:
        for name, (total, count) in figures.items():
            so_far = found.get(name, (0.0, 0.0))
            found[name] = (so_far[0] + total, so_far[1] + count)
    return found


def count_targets(batch: Batch) -> float:
    """Targets of a batch, by their `weights` where it has them."""
    targets = batch["labels"] != IGNORE_INDEX
    return float(batch["weights"][targets].sum() if "weights" in batch else targets.sum())
