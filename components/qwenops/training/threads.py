"""How many CPU threads to train with, found by a short measurement.

On an idle machine two threads are faster than one; on a shared one they can be ten times slower, because
every operator waits for its slowest thread. The count changes the order of sums and so the last bits of the weights;
a resumed loop therefore keeps the count it began with.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

_REPEATS = 2


def choose_threads(work: Callable[[], object], candidates: Sequence[int] | None = None) -> int:
    """Set torch to the thread count with which `work` runs fastest, and return it.

    Args:
        work: Something like one training step; called once to warm up, then twice per candidate.
        candidates: Thread counts to try; by default 1, 2, 4, ... up to the processors of this process.
    """
    tried = list(candidates or _powers_of_two(len(os.sched_getaffinity(0))))
    seconds = {}
    for count in tried:
        torch.set_num_threads(count)
        work()
        seconds[count] = min(_time(work) for _ in range(_REPEATS))
    best = min(tried, key=lambda count: seconds[count])
    torch.set_num_threads(best)
    return best


def remembered_threads(file: Path, work: Callable[[], object]) -> int:
    """`choose_threads`, once: a later call with the same `file` sets the count that was chosen first."""
    if file.exists():
        count = int(file.read_text(encoding="ascii"))
        torch.set_num_threads(count)
        return count
    count = choose_threads(work)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(str(count), encoding="ascii")
    return count


def _time(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _powers_of_two(most: int) -> list[int]:
    return [1 << power for power in range(most.bit_length()) if 1 << power <= most]
