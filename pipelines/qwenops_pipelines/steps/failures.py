"""Why a run on a cluster failed: the step that failed first, in its own words, or in Kubeflow's where it had none.

A step that ends by itself leaves its error among the run's events. One that was killed (out of memory, its node gone, a
deadline, Kubeflow's own driver or launcher) does not: then the run's Workflow says why.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwenops.errors import PlatformError
from qwenops.platform.context import RunContext
from qwenops.platform.kubernetes.workflow import Step, first_failure, is_terminated, read_steps
from qwenops.platform.launch import launchers
from qwenops.platform.stage.events import Events, describe_error
from qwenops_pipelines.dags.nodes import Node
from qwenops_pipelines.record import read_events

_SILENT = "it ended without saying why"


@dataclass(frozen=True)
class Outcome:
    """What Kubeflow knows of a run's end: its steps by their nodes' names; empty where it could not be asked."""

    steps: Mapping[str, Step] = field(default_factory=dict[str, Step])
    terminated: bool = False

    @property
    def failed(self) -> bool:
        """Whether a step failed."""
        return first_failure(dict(self.steps)) is not None


@contextmanager
def recorded(step: str) -> Iterator[None]:
    """Leave how a step that is no stage ends among the events of a run on a cluster."""
    failure: dict[str, Any] = {}
    try:
        yield
    except Exception as error:
        failure = {"error": describe_error(error)}
        raise
    finally:
        context = RunContext.from_environment()
        if context.run_id:
            status = "failed" if failure else "succeeded"
            Events(Path(context.events), step).write(status=status, finished=time.time(), **failure)


def ask_kubeflow(nodes: tuple[Node, ...], context: RunContext) -> Outcome:
    """What the run's Workflow says; empty, with a line in this step's log, where it may not be read."""
    try:
        workflow = launchers.read_workflow(context)
    except PlatformError as error:
        print(f"why steps failed is known from their own words alone: {error}", flush=True)
        workflow = None
    if workflow is None:
        return Outcome()
    steps, events = read_steps(workflow), read_events(Path(context.events))
    return Outcome({_node(name, steps, nodes, events): step for name, step in steps.items()}, is_terminated(workflow))


def _node(step: str, steps: Mapping[str, Step], nodes: tuple[Node, ...], events: Mapping[str, Any]) -> str:
    """The node that a step of Kubeflow's stands for: its own, or the one that a step of several had come to."""
    # Kubeflow writes a task's name with hyphens.
    names = {node.name.replace("_", "-"): node.name for node in nodes}
    first, _, last = step.partition("-to-")
    if step in names or first not in names or last not in names:
        return names.get(step, step)
    order = list(names)
    others = [name for name in order[order.index(first) : order.index(last) + 1] if name not in steps]
    begun = [names[name] for name in others if events.get(names[name], {}).get("status") in ("running", "failed")]
    return begun[0] if len(begun) == 1 and steps[step].state == "failed" else step


def note_killed(nodes: tuple[Node, ...], outcome: Outcome, context: RunContext) -> None:
    """Write Kubeflow's words into the events of the stages that failed without any of their own."""
    for node in nodes:
        step, events = outcome.steps.get(node.name), Events(Path(context.events), node.name)
        facts = events.read()
        if step and step.state == "failed" and facts.get("status", "running") == "running":
            killed = PlatformError(
                f"the step {node.name} was ended from outside",
                expected="a step that ends by itself",
                found=step.message or _SILENT,
                action="look at the pod's node and at its memory limit; the next run reuses what is finished",
            )
            events.write(**(facts | {"status": "failed", "finished": time.time(), "error": describe_error(killed)}))


def find_error(events: Mapping[str, Mapping[str, Any]], outcome: Outcome, otherwise: str) -> dict[str, str]:
    """Task and message of what failed first.

    Args:
        events: Name of a node or step to what it recorded.
        outcome: What Kubeflow says.
        otherwise: What there is to say where nobody names a step.
    """
    told = {name: facts for name, facts in events.items() if facts.get("status") == "failed" and "error" in facts}
    first = first_failure(dict(outcome.steps))
    if first is not None:
        task, message = first[0], first[1].message or _SILENT
    elif told:
        task, message = min(told, key=lambda name: told[name].get("finished", 0.0)), ""
    else:
        ended = [name for name, facts in events.items() if facts.get("status") == "running"]
        task, message = (ended[0], _SILENT) if ended else ("", otherwise or _SILENT)
    if task in told:
        message = told[task]["error"]["message"]
    return {"task": task, "message": f"the run was terminated ({message})" if outcome.terminated else message}
