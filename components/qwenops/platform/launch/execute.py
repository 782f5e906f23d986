"""Run (or reuse) one stage: what a step of either backend calls.

It returns the published artifact when one with the task's fingerprint is intact, and otherwise asks the launcher that
the placement chose. On one machine a stage may have been started ahead of its step
(`qwenops_pipelines.stage_scheduler`): the step then takes what came of that.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenops.platform.context import RunContext
from qwenops.platform.launch import kfp_artifacts, launchers
from qwenops.platform.launch.launchers import LaunchRequest
from qwenops.platform.launch.outcome import is_running, recorded_outcome, take_published
from qwenops.platform.stage.events import Events
from qwenops.platform.stage.slices import read_slice
from qwenops.platform.stage.task import (
    Published,
    Task,
    TaskSpec,
    do_in_turn,
    find_published,
    made_by,
    read_task,
    sources_of,
)


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


@dataclass(frozen=True)
class Part:
    """One of several nodes that run in one step; as the arguments of `execute`.

    Attributes:
        stage: Dotted place below `qwenops`.
        slice_text: Canonical JSON of a `slices.Reference`, or of the `Slice` itself.
        inputs: Input name to a published artifact; also the file of the output of a part before it.
        shown: KFP artifacts of the node: "output", "metrics", "summary" and so on.
    """

    stage: str
    slice_text: str
    inputs: Mapping[str, str | Path]
    shown: Mapping[str, Any]


def execute_in_turn(*parts: Part) -> None:
    """Run (or reuse) several nodes of one step in their order, by one RayJob where the placement names a Ray cluster.

    Each has its artifact, its record, its MLflow run and its Kubeflow artifacts, as in a step of its own.

    Raises:
        QwenOpsError: as `execute`; the parts after the one that failed have not begun.
    """
    context = RunContext.from_environment()
    if context.cluster:
        _launch_together(parts, context)
    for part in parts:
        execute(part.stage, part.slice_text, part.inputs, **part.shown)


def _launch_together(parts: Sequence[Part], context: RunContext) -> None:
    """Have one RayJob make what is missing; its name follows from all parts, so that a retried step adopts it."""
    made: dict[Path, str] = {}
    specs: list[TaskSpec] = []
    for part in parts:
        places = {
            name: made_by(made[Path(place)]) if Path(place) in made else kfp_artifacts.address_of(place)
            for name, place in part.inputs.items()
        }
        envelope = read_slice(part.stage, part.slice_text, context)
        causes = dict(sources_of(context).causes(part.stage, envelope.config))
        specs.append({"stage": part.stage, "slice": part.slice_text, "inputs": places, "causes": causes})
        made[Path(part.shown["output"].path)] = envelope.node
    first: TaskSpec = {**specs[0], "then": specs[1:]}
    if len(do_in_turn(first, context, lambda task: find_published(task, context))) < len(parts):
        task = read_task(first, context)
        launchers.select_launcher(context).launch(task, {**first, "node": task.slice.node}, context)


def run_task(task: Task, spec: TaskSpec, context: RunContext) -> Published:
    """Run (or reuse) a task.

    Args:
        task: What is to run.
        spec: The same as it travels to another process.
        context: Where this process runs.

    Raises:
        QwenOpsError: as `execute`.
    """
    began = time.time()
    published = recorded_outcome(task, context)
    if published is None and not is_running(task, context):
        published = take_published(task, context)
    if published is None:
        if not context.stage_server:
            # Where stages start ahead of their steps, this one may end just now, and says so itself.
            Events(Path(context.events), task.slice.node).write(status="running", started=began)
        request: LaunchRequest = {**spec, "causes": dict(task.causes), "node": task.slice.node}
        published = launchers.select_launcher(context).launch(task, request, context)
    return published
