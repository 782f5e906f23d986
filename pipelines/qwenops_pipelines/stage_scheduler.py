"""Stages side by side on one machine: each starts as soon as what it reads is there, ahead of its step.

KFP's local runner takes the DAG's tasks one after the other. This thread asks the stage server for a stage as soon as
its inputs are published; the step that comes later takes what came of it (`platform.launch.outcome`). What runs, and
from what, is the DAG's alone.
"""

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from qwenops.platform.context import RunContext
from qwenops.platform.launch.execute import run_task
from qwenops.platform.stage.task import Published, Task, TaskSpec, sources_of
from qwenops.recipe.codec import canonical
from qwenops.recipe.config import Config
from qwenops.recipe.schema import Recipe, resolve
from qwenops.recipe.slice import Slice
from qwenops_pipelines.dags.nodes import Node

_LOOK_SECONDS = 0.5
# Areas whose stages compute for as long as they last; the others wait for files, or for Ray.
_COMPUTING = ("pretraining", "alignment", "evaluation")


def num_slots(num_workers: int) -> int:
    """Stages that this machine runs at once: two, or one where there is an accelerator, or workers besides."""
    accelerated = any(Path("/dev").glob("nvidia[0-9]*"))
    return 1 if accelerated or num_workers or len(os.sched_getaffinity(0)) == 1 else 2


def nodes_sharing_processors(nodes: Sequence[Node]) -> tuple[str, ...]:
    """The nodes beside which the DAG lets another run that computes as long as they do."""
    above: dict[str, set[str]] = {}
    for node in nodes:
        above[node.name] = set(node.inputs.values()).union(*(above[source] for source in node.inputs.values()))
    computing = [node.name for node in nodes if node.area in _COMPUTING]
    return tuple(
        one
        for one in (node.name for node in nodes)
        if any(one != two and one not in above[two] and two not in above[one] for two in computing)
    )


@contextlib.contextmanager
def run_ahead(recipe: Recipe, nodes: Sequence[Node], found: Mapping[str, Path], num_slots: int) -> Iterator[None]:
    """Run the stages of `nodes` as above until the block is left; what then still runs is left to the stage server.

    Args:
        recipe: What runs.
        nodes: Its nodes, in running order.
        found: Those whose artifacts are reused, to their folders.
        num_slots: Stages at once; with one, every stage waits for its step.
    """
    if num_slots == 1:
        yield
        return
    stopped = threading.Event()
    thread = threading.Thread(target=_run, args=(recipe, nodes, found, num_slots, stopped), name="ahead", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()


def _run(
    recipe: Recipe, nodes: Sequence[Node], found: Mapping[str, Path], num_slots: int, stopped: threading.Event
) -> None:
    slices, todo = resolve(recipe), [node for node in nodes if node.name not in found]
    made = dict(found)
    running: dict[Future[Published], Node] = {}
    pool = ThreadPoolExecutor(num_slots, thread_name_prefix="ahead")
    while not stopped.is_set() and (todo or running):
        ready = [node for node in todo if made.keys() >= set(node.inputs.values())]
        for node in ready[: num_slots - len(running)]:
            todo.remove(node)
            inputs = {name: made[source] for name, source in node.inputs.items()}
            running[pool.submit(_execute, node.stage, slices[node.name], inputs)] = node
        for done in wait(running, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED).done:
            node = running.pop(done)
            if done.exception():
                # Its step will say so; nothing that is not running yet is started any more.
                todo.clear()
            else:
                made[node.name] = done.result().path
    pool.shutdown(wait=False, cancel_futures=True)


def _execute(stage: str, envelope: Slice[Config], inputs: Mapping[str, Path]) -> Published:
    context = RunContext.from_environment()
    task = Task(stage, envelope, inputs, sources_of(context).causes(stage, envelope.config))
    folders = {name: str(path) for name, path in inputs.items()}
    spec: TaskSpec = {"stage": stage, "slice": canonical(envelope), "inputs": folders}
    return run_task(task, spec, context)
