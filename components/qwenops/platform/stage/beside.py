"""A second piece of a stage's work beside the first, such as the other arm of a comparison, in a fork of its process.

Where the stage is held to one of two slots the fork waits until no other stage computes, and then takes the processors
that the stage's own process leaves free; where they are never free it starts when the first piece is done. In either
case each piece has the processors of one slot, so its threads, and with them its figures, do not depend on what else
runs. Everywhere else the pieces run one after the other: all processors, an accelerator or workers belong to one of
them at a time.
"""

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Generator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from qwenops.errors import QwenOpsError, StageError
from qwenops.platform.context import RunContext
from qwenops.platform.stage.events import Events
from qwenops.platform.stage.handle import Stage
from qwenops.platform.termination import begin_fork

T = TypeVar("T")
_LOOK_SECONDS = 0.5


@contextlib.contextmanager
def beside(stage: Stage, work: Callable[[], T]) -> Generator[Callable[[], T]]:
    """Run `work` beside the block; what is yielded returns its result, or raises its error.

    Args:
        stage: The stage; where `work` reports curves and warnings to it, they count as its own. Metrics and counts of
            a fork are lost, so `work` returns its figures.
        work: Its result can be pickled. It may make no backward pass where this process has made one, after which
            torch refuses another in a fork; nor may this process have computed with several threads, whose pool a
            fork lacks.

    Raises:
        StageError: the fork died without a result.
    """
    # The stage server, which forked this process, holds all processors of the run.
    free = os.sched_getaffinity(os.getppid()) - os.sched_getaffinity(0)
    if not free or not _has_slots(stage.context):
        yield work
        return
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    known = len(stage.warnings)
    child = context.Process(target=_run, args=(stage, work, ours, theirs, free), daemon=True)
    sys.stdout.flush()
    child.start()
    theirs.close()

    def result() -> T:
        # From here on this process waits, and the fork has its processors.
        with contextlib.suppress(OSError):
            ours.send("start")
        try:
            found, warnings, error = ours.recv()
        except (EOFError, ConnectionError):
            child.join()
            raise StageError(
                f"a fork of {stage.node} died without a result",
                expected="the figures of the other arm",
                found=f"exit status {child.exitcode}",
                action="look for an out-of-memory kill (dmesg), then run again to continue",
            ) from None
        stage.warnings[known:known] = warnings
        if error:
            raise error
        return found

    try:
        yield result
    finally:
        child.terminate()
        child.join()
        ours.close()


def _has_slots(context: RunContext) -> bool:
    return context.slots > 1 and not context.num_workers and context.use_gpu != "yes"


def _run(stage: Stage, work: Callable[[], T], ours: Connection, theirs: Connection, free: set[int]) -> None:
    """In the fork: wait for a turn, work, send (result, warnings, error)."""
    ours.close()
    begin_fork()
    known = len(stage.warnings)
    found: T | None = None
    error: QwenOpsError | None = None
    try:
        if not _is_awaited(stage, theirs):
            os.sched_setaffinity(0, free)
        found = work()
    except QwenOpsError as raised:
        error = raised
    except Exception as raised:  # noqa: BLE001 - outer border of the fork: the stage names it
        error = StageError(f"the other arm of {stage.node} failed", found=f"{type(raised).__name__}: {raised}")
    theirs.send((found, stage.warnings[known:], error))


def _is_awaited(stage: Stage, theirs: Connection) -> bool:
    """Wait for a turn; whether it is that of the stage's own process, which has nothing else to do any more."""
    while _others_running(Path(stage.context.events), stage.node):
        if theirs.poll(_LOOK_SECONDS):
            return True
    return False


def _others_running(events: Path, node: str) -> bool:
    """Whether another node of the run computes, by what it has recorded."""
    others = (file.stem for file in events.glob("*.json") if file.stem != node)
    return any(Events(events, other).read().get("status") == "running" for other in others)
