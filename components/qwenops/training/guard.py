"""The guard of a training loop: skip a bad step, go back after several, stop when that does not help.

A step is bad when its loss or gradient norm is not finite, or when its norm is far above the recent ones. A skipped
step leaves weights and optimiser alone. After `max_skips` of them in a row, or when the mean loss is far above its
start, the weights and the optimiser go back to the last checkpoint while the counters go on: the batches since then
are left out, since they are where the trouble began. All workers see the same global figures and so decide alike.
"""

import math
import statistics
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist

from qwenops.errors import StageError
from qwenops.training.checkpoint import LoopState
from qwenops.training.config import TrainingConfig
from qwenops.training.parallel import is_distributed, worker_rank

WINDOW = 8
_NORMS, _FEWEST_NORMS = 32, 16
_MOST_DOCUMENTS = 20


def find_fault(config: TrainingConfig, state: LoopState, loss: float, norm: float) -> str:
    """Why this step must not change the weights, or ""; remembers the norm of a good step."""
    if not (math.isfinite(loss) and math.isfinite(norm)):
        return f"loss {loss}, gradient norm {norm}"
    if config.skip_ratio:
        recent = statistics.median(state.norms) if len(state.norms) >= _FEWEST_NORMS else math.inf
        if norm > config.skip_ratio * recent:
            return f"gradient norm {norm:.4g}, {norm / recent:.1f} times the median of the last {len(state.norms)}"
        state.norms[:] = [*state.norms, norm][-_NORMS:]
    return ""


def num_skipped_in_a_row(state: LoopState) -> int:
    """Length of the run of skipped steps that ends at the last finished step, since the last rollback."""
    recent = [step for step in state.skipped if step >= state.rolled_back_at]
    count = 0
    while count < len(recent) and recent[-1 - count] == state.step - 1 - count:
        count += 1
    return count


def find_divergence(config: TrainingConfig, state: LoopState) -> str:
    """How far the mean of the last losses lies above the first ones, or "": single spikes pass, divergence does not."""
    # Called at every step: only both ends are looked at, however long the loop is.
    if len(list(islice(filter(math.isfinite, state.losses), 2 * WINDOW))) < 2 * WINDOW:
        return ""
    first = finite_mean(list(islice(filter(math.isfinite, state.losses), WINDOW)))
    recent = finite_mean(list(islice(filter(math.isfinite, reversed(state.losses)), WINDOW)))
    if first > 0 and recent > config.spike_ratio * first:
        return f"{recent:.3f} over the last {WINDOW} steps, more than {config.spike_ratio} times its start {first:.3f}"
    return ""


def nonfinite_error(step: int, fault: str, local_loss: float, batch: Sequence[Any]) -> StageError:
    """The error that ends a loop; names the step, the workers whose own loss was not finite, and their documents."""
    own = (worker_rank().rank, math.isfinite(local_loss), _documents(batch))
    every: list[Any] = [own]
    if is_distributed():
        every = [None] * dist.get_world_size()
        dist.all_gather_object(every, own)
    guilty = [entry for entry in every if not entry[1]] or every
    places = "; ".join(f"rank {rank}: {documents}" for rank, _, documents in guilty)
    return StageError(
        f"training broke at step {step}",
        expected="a finite loss and gradient",
        found=f"{fault}; {places}",
        action="lower the learning rate, or look at these documents",
    )


def finite_mean(values: Sequence[float]) -> float:
    """Mean of the finite values; not a number when there is none."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _documents(micro: Sequence[Any]) -> str:
    """The documents of a step's batches where they name them (`documents`), else the first tokens of each row."""
    named = sorted({str(name) for batch in micro for name in batch.get("documents", ())})
    if named:
        shown = ", ".join(map(str, named[:_MOST_DOCUMENTS]))
        return f"documents {shown}" + (" and others" if len(named) > _MOST_DOCUMENTS else "")
    tensors = [value for batch in micro for key, value in batch.items() if key.endswith("input_ids")]
    rows = [row[:4].tolist() for ids in tensors if isinstance(ids, torch.Tensor) for row in ids]
    return f"rows that begin with tokens {rows[:_MOST_DOCUMENTS]}"
