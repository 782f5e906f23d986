"""Independent pieces of work in forks of this process, which hold all that it has imported."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from qwenops.errors import StageError
from qwenops.platform.termination import begin_fork

Item = TypeVar("Item")
Result = TypeVar("Result")
# One that the kernel killed for its memory may fit beside the others' next pieces; one that never fits ends the stage.
_STARTS = 4


def map_in_forks(
    function: Callable[[Item], Result], items: Sequence[Item], num_forks: int
) -> Iterator[tuple[int, Result]]:
    """Yield (place of the item, result) as pieces finish; those that die with their fork are done again.

    Args:
        function: Its result can be pickled; it must be able to write over what a dead fork left.
        items: One for each piece.
        num_forks: Processes at once.

    Raises:
        StageError: a fork died for the fourth time.
    """
    waiting = dict(enumerate(items))
    for left in reversed(range(_STARTS)):
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(min(num_forks, len(waiting)), mp_context=context, initializer=begin_fork) as pool:
            try:
                # A fork that dies by now breaks the pool before all pieces are in it.
                places = {pool.submit(function, item): place for place, item in waiting.items()}
                for done in as_completed(places):
                    result = done.result()
                    del waiting[places[done]]
                    yield places[done], result
            except BrokenProcessPool:
                if not left:
                    raise StageError(
                        "a process that worked on one piece of the stage died",
                        expected=f"results of {len(items)} pieces",
                        found=f"{len(waiting)} without one after {_STARTS} starts",
                        action="look for an out-of-memory kill (dmesg), then run again to continue",
                    ) from None
            else:
                return
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
