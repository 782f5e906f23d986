"""Independent pieces of work: in forks of this process on a laptop, as Ray tasks in a cluster."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray

from qwenops.platform.context import RunContext
from qwenops.platform.forks import map_in_forks
from qwenops.platform.ray.start import connect

T = TypeVar("T")


def run_tasks(context: RunContext, function: Callable[[Any], T], items: Sequence[Any]) -> Iterator[tuple[int, T]]:
    """Yield (place of the item, result) as pieces finish.

    With `context.num_workers == 0` the pieces run in forks of this process, one for each slot, or in itself where there
    is one slot: a Ray worker would spend longer on importing torch than a laptop's pieces take. Otherwise each is a Ray
    task, with a GPU when the context has them. A piece whose worker dies is done again, three times at most.

    Args:
        context: Where this runs.
        function: Picklable, a `functools.partial` too; its result depends on its item only.
        items: One for each piece.

    Raises:
        StageError: a fork died.
    """
    if not context.num_workers:
        if context.slots > 1 and len(items) > 1:
            yield from map_in_forks(function, items, context.slots)
        else:
            yield from ((place, function(item)) for place, item in enumerate(items))
        return
    connect(context)
    task = ray.remote(num_cpus=1, num_gpus=1 if context.use_gpu == "yes" else 0)(_do)
    # Ray makes a task of a plain function only, so that the function itself is an argument.
    shared = ray.put(function)
    places = {task.remote(shared, item): place for place, item in enumerate(items)}
    while places:
        done, _ = ray.wait(list(places), num_returns=1)
        yield places.pop(done[0]), ray.get(done[0])


def _do(function: Callable[[Any], T], item: Any) -> T:
    return function(item)
