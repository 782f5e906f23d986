"""One task on its way through the rayjob launcher: who it belongs to, its manifest, and what its driver said."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenops.errors import FAMILIES, QwenOpsError
from qwenops.platform.context import RunContext
from qwenops.platform.kubernetes.client import Json, Kube
from qwenops.platform.kubernetes.ray_manifest import Identity, ray_job
from qwenops.platform.kubernetes.token import write_token
from qwenops.platform.stage.task import Task, place
from qwenops.recipe.codec import canonical
from qwenops.recipe.placement import RayCluster


@dataclass(frozen=True)
class Work:
    """One task, and what the launcher must know about it.

    Attributes:
        message: The task as the launcher got it.
        task: The task.
        context: Where the step runs.
        identity: Names and owner of its RayJobs.
    """

    message: Mapping[str, Any]
    task: Task
    context: RunContext
    identity: Identity

    @property
    def node(self) -> str:
        """The DAG node."""
        return self.task.slice.node

    def manifest(self, cluster: RayCluster, attempt: int) -> Json:
        """The RayJob of an attempt."""
        token = write_token(self.message, self.context, self.identity.name(attempt))
        entrypoint = f"python -m qwenops.platform.launch.driver {token}"
        return ray_job(cluster, self.identity, attempt, entrypoint, canonical(dict(self.message)))


def identify(task: Task, context: RunContext, kube: Kube) -> Identity:
    """What a task's RayJobs are called and whom they belong to."""
    key, _ = place(task, context)
    owner = _owner(context.pod_name, kube)
    return Identity(context.run_id or owner.get("uid") or context.run_name, task.slice.node, key, owner)


def driver_facts(context: RunContext, node: str) -> dict[str, Any]:
    """The newest event of a node; empty when there is none."""
    try:
        text = (Path(context.events) / f"{node}.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    return json.loads(text)


def driver_error(context: RunContext, node: str, job: str) -> QwenOpsError | None:
    """What the driver of this very job said of its own failure."""
    facts = driver_facts(context, node)
    if facts.get("job") != job or facts["status"] != "failed":
        return None
    return FAMILIES[facts["error"]["family"]](facts["error"]["message"])


def _owner(pod_name: str, kube: Kube) -> Json:
    """What owns the step's pod; the pod itself where nothing does, nothing outside a pod."""
    pod = kube.pod(pod_name) if pod_name else None
    if pod is None:
        return {}
    for owner in pod.metadata.owner_references or []:
        if owner.controller:
            return {"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid}
    return {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid}
