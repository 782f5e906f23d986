"""What an Argo Workflow of Kubeflow says of each step of a run: one state and one message a step, pure functions.

Kubeflow makes several nodes of a step (`backend/src/v2/compiler/argocompiler` of its 2.17.0): a pod `collect-driver`, a
DAG `collect` and in it `executor`, a pod, or a `Retry` with a pod for each attempt; where the step was in the cache,
`executor` is skipped and `collect` succeeds. Nodes of DAGs around the steps stand for no work of ours.
"""

import base64
import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from qwenops.platform.kubernetes.objects import Json

State = Literal["running", "succeeded", "cached", "failed"]
_STEP, _DRIVER, _DAG_DRIVER = "system-container-executor", "system-container-driver", "system-dag-driver"
_SUFFIX = "-driver"
_FAILED = ("Failed", "Error")
_LAST = "9999"


@dataclass(frozen=True)
class Step:
    """How far a step is.

    Attributes:
        state: "cached" was taken from Kubeflow's cache.
        message: Why it failed, in Argo's words ("OOMKilled (exit code 137)", "pod deleted"); else empty.
        finished: Kubernetes time stamp of the failure; empty where it goes on or did not fail.
    """

    state: State
    message: str = ""
    finished: str = ""


def read_steps(workflow: Json) -> dict[str, Step]:
    """Step name, as Kubeflow spells it, to its state, in the order in which they began; without those that never did.

    A driver of a whole DAG is listed, under its own name, where it failed: then no step of it began.

    Args:
        workflow: The Workflow as the API server or Kubeflow's hands it out.
    """
    nodes = _nodes(workflow.get("status") or {})
    found: dict[str, Step] = {}
    for node in sorted(nodes, key=lambda node: str(node.get("startedAt") or _LAST)):
        name, template = str(node.get("displayName", "")), str(node.get("templateName", ""))
        failed = node.get("phase") in _FAILED
        if template == _DRIVER:
            found[name.removesuffix(_SUFFIX)] = _failure([node]) if failed else Step("running")
        elif template == _DAG_DRIVER and failed:
            found[name] = _failure([node])
        elif template.endswith(_STEP) and node.get("phase") != "Omitted":
            inner = [other for other in nodes if other.get("boundaryID") == node["id"]]
            found[name] = _step(node, inner)
    return found


def is_terminated(workflow: Json) -> bool:
    """Whether somebody ended the run: Kubeflow does it by a deadline of 0 seconds, Argo's own tools by `shutdown`."""
    spec: Json = workflow.get("spec") or {}
    return spec.get("activeDeadlineSeconds") == 0 or bool(spec.get("shutdown"))


def first_failure(steps: dict[str, Step]) -> tuple[str, Step] | None:
    """The step that failed first, with its name; None where none has."""
    failed = [(name, step) for name, step in steps.items() if step.state == "failed"]
    return min(failed, key=lambda item: item[1].finished or _LAST, default=None)


def _step(node: Json, inner: Iterable[Json]) -> Step:
    if node.get("phase") in _FAILED:
        return _failure([node, *(other for other in inner if other.get("phase") in _FAILED)])
    if node.get("phase") != "Succeeded":
        return Step("running")
    return Step("cached" if any(other.get("phase") == "Skipped" for other in inner) else "succeeded")


def _failure(nodes: list[Json]) -> Step:
    """What the last pod of a step said; a DAG or a `Retry` only counts its children."""
    told = [node for node in nodes if node.get("type") == "Pod" and node.get("message")] or nodes
    last = max(told, key=lambda node: str(node.get("finishedAt") or ""))
    return Step("failed", str(last.get("message") or ""), str(last.get("finishedAt") or ""))


def _nodes(status: Json) -> list[Json]:
    """Argo compresses the nodes of a workflow that grows beyond a megabyte."""
    nodes: dict[str, Any] = status.get("nodes") or {}
    if not nodes and status.get("compressedNodes"):
        nodes = json.loads(gzip.decompress(base64.b64decode(status["compressedNodes"])))
    return list(nodes.values())
