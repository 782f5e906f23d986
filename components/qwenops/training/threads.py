"""How many CPU threads to train with, found by a short measurement.

On an idle machine two threads are faster than one; on a shared one they can be ten times slower, because
every operator waits for its slowest thread. The count changes the order of sums and so the last bits of the weights;
a resumed loop therefore keeps the count it began with.
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from qwenops.training.config import TrainingConfig
from qwenops.training.fit import Batches, split_micro_batches
from qwenops.training.precision import autocast
from qwenops.training.recompute import recompute_layers
from qwenops.training.terms import Objective

# A count is tried this often, or until it has taken so long that one more try would tell nothing new.
_REPEATS, _ENOUGH_SECONDS = 3, 2.0
# Whole rows up to so many tokens tell as much as a micro-batch does; of pairs, which come cut, a piece is taken whole.
_TRIED_TOKENS = 2048


def tune_threads(work: Callable[[], object], candidates: Sequence[int] | None = None) -> int:
    """Set torch to the thread count with which `work` runs fastest, and return it.

    Args:
        work: Something like one training step; called three times per candidate, less often where it takes seconds.
        candidates: Thread counts to try, in this order, until one is slower than the one before; by default the
            processors of this process, rounded down to a power of two, and halves of it.
    """
    best, least = 0, math.inf
    for count in candidates or _halves(len(os.sched_getaffinity(0))):
        torch.set_num_threads(count)
        spent = [_time(work)]
        while len(spent) < _REPEATS and sum(spent) < _ENOUGH_SECONDS:
            spent.append(_time(work))
        if min(spent) >= least:
            break
        best, least = count, min(spent)
    torch.set_num_threads(best)
    return best


def tune_training_threads(
    file: Path, model: nn.Module, objective: Objective, batches: Batches, config: TrainingConfig
) -> int:
    """`tune_threads` by a small forward and backward pass as `fit` makes it; the gradients are dropped.

    Args:
        file: Remembers the count: a later call with the same file sets it again and measures nothing.
        model: As for `fit`.
        objective: As for `fit`.
        batches: As for `fit`.
        config: As for `fit`.

    Returns:
        The count that is set; on a GPU, whose work threads only hand over, the one that was set before.
    """
    if next(model.parameters()).device.type != "cpu":
        return torch.get_num_threads()
    if file.exists():
        count = int(file.read_text(encoding="ascii"))
        torch.set_num_threads(count)
        return count

    most = min(config.micro_batch_tokens or _TRIED_TOKENS, _TRIED_TOKENS)
    tried = config.model_copy(update={"micro_batch_tokens": most})

    def work() -> None:
        # As `fit` does it, or the pass would need memory that training does not.
        if config.recompute != "none":
            recompute_layers(model, config.recompute)
        with autocast(model, config.precision):
            loss, _ = objective(model, split_micro_batches(next(batches(0)), tried)[0])
        loss.backward()
        model.zero_grad(set_to_none=True)

    count = tune_threads(work)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(str(count), encoding="ascii")
    return count


def _time(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _halves(most: int) -> list[int]:
    return [1 << power for power in reversed(range(most.bit_length()))]
