"""One task on its way through the rayjob launcher: who it belongs to, its manifest, and what its driver said."""

from dataclasses import dataclass
from pathlib import Path

from qwenops.errors import QwenOpsError
from qwenops.platform.context import RunContext
from qwenops.platform.kubernetes.client import Kube
from qwenops.platform.kubernetes.objects import Json
from qwenops.platform.kubernetes.ray_manifest import Identity, ray_job
from qwenops.platform.kubernetes.token import write_token
from qwenops.platform.stage.events import Events, described_error
from qwenops.platform.stage.task import Task, TaskSpec, artifact_location
from qwenops.recipe.codec import canonical
from qwenops.recipe.placement import RayCluster


@dataclass(frozen=True)
class Work:
    """One task, and what the launcher must know about it.

    Attributes:
        spec: The task as the launcher got it.
        task: The task.
        context: Where the step runs.
        identity: Names and owner of its RayJobs.
    """

    spec: TaskSpec
    task: Task
    context: RunContext
    identity: Identity

    @property
    def node(self) -> str:
        """The DAG node."""
        return self.task.slice.node

    def manifest(self, cluster: RayCluster, attempt: int) -> Json:
        """The RayJob of an attempt."""
        token = write_token(self.spec, self.context, self.identity.name(attempt))
        entrypoint = f"python -m qwenops.platform.launch.driver {token}"
        return ray_job(cluster, self.identity, attempt, entrypoint, canonical(dict(self.spec)))


def identify(task: Task, context: RunContext, kube: Kube) -> Identity:
    """What a task's RayJobs are called and whom they belong to."""
    key, _ = artifact_location(task, context)
    owner = _owner(context.pod_name, kube)
    return Identity(context.run_id or owner.get("uid") or context.run_name, task.slice.node, key, owner)


def driver_error(context: RunContext, node: str, job: str) -> QwenOpsError | None:
    """What the driver of this very job said of its own failure."""
    facts = Events(Path(context.events), node).read()
    return described_error(facts["error"]) if facts.get("job") == job and "error" in facts else None


def _owner(pod_name: str, kube: Kube) -> dict[str, str]:
    """What owns the step's pod; the pod itself where nothing does, nothing outside a pod."""
    pod = kube.pod(pod_name) if pod_name else None
    if pod is None:
        return {}
    for owner in pod.metadata.owner_references or []:
        if owner.controller:
            return {"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid}
    return {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid}
