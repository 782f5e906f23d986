"""Run (or reuse) one stage: what a step of either backend calls.

It returns the published artifact when one with the task's fingerprint is intact, and otherwise asks the launcher that
the placement chose. On one machine a stage may have been started ahead of its step
(`qwenops_pipelines.stage_scheduler`): the step then takes what came of that.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwenops.platform.context import RunContext
from qwenops.platform.launch import kfp_artifacts, launchers
from qwenops.platform.launch.launchers import LaunchRequest
from qwenops.platform.launch.outcome import is_running, recorded_outcome
from qwenops.platform.stage.events import Events
from qwenops.platform.stage.task import Published, Task, TaskSpec, find_published, read_task


def execute(
    stage: str, slice_text: str, inputs: Mapping[str, str | Path], output: Any = None, **shown: Any
) -> Published:
    """Run (or reuse) the stage `area.folder` under the context of this process's environment.

    Args:
        stage: Dotted place below `qwenops`, for example "data.dedup".
        slice_text: Canonical JSON of a `slices.Reference`, or of the `Slice` itself.
        inputs: Input name to a published artifact: its folder, its address, or the file of the step that made it.
        output: A KFP artifact, or None; its file will say where the artifact lies.
        shown: Further KFP artifacts of the task, filled by `kfp_artifacts.fill`.

    Raises:
        QwenOpsError: of the family that says whose fault it was; also recorded among the run's events.
    """
    context = RunContext.from_environment()
    places = {name: kfp_artifacts.address_of(place) for name, place in inputs.items()}
    spec: TaskSpec = {"stage": stage, "slice": slice_text, "inputs": places}
    published = run_task(read_task(spec, context), spec, context)
    kfp_artifacts.fill(published.path, published.manifest, context, address=published.address, output=output, **shown)
    return published


def run_task(task: Task, spec: TaskSpec, context: RunContext) -> Published:
    """Run (or reuse) a task.

    Args:
        task: What is to run.
        spec: The same as it travels to another process.
        context: Where this process runs.

    Raises:
        QwenOpsError: as `execute`.
    """
    events, began = Events(Path(context.events), task.slice.node), time.time()
    published = recorded_outcome(task, context)
    if published is None and not is_running(task, context) and (published := find_published(task, context)):
        events.write(status="skipped", started=began, finished=time.time(), artifact=published.address)
    if published is None:
        if not context.stage_server:
            # Where stages start ahead of their steps, this one may end just now, and says so itself.
            events.write(status="running", started=began)
        request: LaunchRequest = {**spec, "causes": dict(task.causes), "node": task.slice.node}
        published = launchers.select_launcher(context).launch(task, request, context)
    return published
