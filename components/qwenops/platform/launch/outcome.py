"""What there is of a task already: made by another process of this run, or by an earlier one."""

import time
from pathlib import Path

from qwenops.platform.context import RunContext
from qwenops.platform.stage.events import Events, Facts, described_error
from qwenops.platform.stage.task import Published, Task, find_published


def recorded_outcome(task: Task, context: RunContext) -> Published | None:
    """The artifact of a task that this run has made or found; None where it has yet to run.

    Only where stages are started ahead of their steps, on one machine: a step of a cluster that is tried again runs.

    Raises:
        QwenOpsError: what the stage raised when this run tried it.
    """
    if not context.stage_server:
        return None
    facts = _recorded(task, context)
    if "error" in facts:
        raise described_error(facts["error"])
    if facts.get("status") not in ("succeeded", "skipped"):
        return None
    return find_published(task, context, made_now=True)


def take_published(task: Task, context: RunContext) -> Published | None:
    """The task's intact artifact, recorded as reused unless this very run has made it; None where there is none."""
    began = time.time()
    published = find_published(task, context)
    if published is None:
        return None
    facts = _recorded(task, context)
    made_now = context.run_id and facts.get("status") == "succeeded" and facts.get("artifact") == published.address
    if not made_now:
        Events(Path(context.events), task.slice.node).write(
            status="skipped", started=began, finished=time.time(), artifact=published.address
        )
    return published


def is_running(task: Task, context: RunContext) -> bool:
    """Whether this run has begun the task and not ended it; what it has published by then is not all it does."""
    return bool(context.stage_server) and _recorded(task, context).get("status") == "running"


def _recorded(task: Task, context: RunContext) -> Facts:
    return Events(Path(context.events), task.slice.node).read()
