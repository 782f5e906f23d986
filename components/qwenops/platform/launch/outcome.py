"""What this run has already made of a task that another process of it started."""

from pathlib import Path

from qwenops.errors import FAMILIES
from qwenops.platform.context import RunContext
from qwenops.platform.stage.events import Events
from qwenops.platform.stage.task import Published, Task, find_published


def outcome(task: Task, context: RunContext) -> Published | None:
    """The artifact of a task that this run has made or found; None where it has yet to run.

    Only where stages are started ahead of their steps, on one machine: a step of a cluster that is tried again runs.

    Raises:
        QwenOpsError: what the stage raised when this run tried it.
    """
    if not context.stage_server:
        return None
    facts = Events(Path(context.events), task.slice.node).read()
    if facts.get("status") == "failed":
        raise FAMILIES[facts["error"]["family"]](facts["error"]["message"])
    if facts.get("status") not in ("succeeded", "skipped"):
        return None
    return find_published(task, context, made_now=True)
