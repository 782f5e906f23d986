"""One step's work on its way through the rayjob launcher: whose it is, its manifest, and what its driver said."""

from dataclasses import dataclass
from pathlib import Path

from qwenops.errors import QwenOpsError
from qwenops.platform.context import RunContext
from qwenops.platform.kubernetes.client import Kube
from qwenops.platform.kubernetes.objects import Json
from qwenops.platform.kubernetes.ray_manifest import Identity, ray_job
from qwenops.platform.kubernetes.token import write_token
from qwenops.platform.stage.events import Events, described_error
from qwenops.platform.stage.slices import read_slice
from qwenops.platform.stage.task import SCRATCH, Task, TaskSpec, artifact_location, scratch_folder
from qwenops.recipe.codec import canonical, fingerprint
from qwenops.recipe.placement import RayCluster


@dataclass(frozen=True)
class Work:
    """One task, or several in turn, and what the launcher must know about it.

    Attributes:
        spec: The task as the launcher got it, and what is to follow it.
        task: The task; of several the first.
        context: Where the step runs.
        identity: Names and owner of its RayJobs.
    """

    spec: TaskSpec
    task: Task
    context: RunContext
    identity: Identity

    @property
    def name(self) -> str:
        """The DAG node; of several the first and the last."""
        return self.identity.node

    @property
    def nodes(self) -> list[str]:
        """The DAG nodes, in running order."""
        return _nodes(self.task, self.spec, self.context)

    def running(self) -> tuple[str, Path]:
        """The node that computes now, and its scratch folder; the first one where none has begun."""
        _, first = artifact_location(self.task, self.context)
        scratch = scratch_folder(first)
        states = {node: Events(Path(self.context.events), node).read().get("status") for node in self.nodes}
        node = next((node for node, state in states.items() if state == "running"), self.nodes[0])
        if node != self.nodes[0]:
            folders = scratch.parent.parent.joinpath(node).glob(SCRATCH)
            scratch = max(folders, key=lambda folder: folder.stat().st_mtime, default=scratch)
        return node, scratch

    def manifest(self, cluster: RayCluster, attempt: int) -> Json:
        """The RayJob of an attempt."""
        token = write_token(self.spec, self.context, self.identity.name(attempt))
        entrypoint = f"python -m qwenops.platform.launch.driver {token}"
        return ray_job(cluster, self.identity, attempt, entrypoint, canonical(dict(self.spec)))


def identify(task: Task, spec: TaskSpec, context: RunContext, kube: Kube) -> Identity:
    """What the RayJobs of a task, and of what follows it, are called and whom they belong to."""
    key, _ = artifact_location(task, context)
    name, then = task.slice.node, spec.get("then", [])
    if then:
        name, key = f"{name}-to-{_nodes(task, spec, context)[-1]}", fingerprint({"first": key, "then": then})
    owner = owner_of(context.pod_name, kube)
    return Identity(context.run_id or owner.get("uid") or context.run_name, name, key, owner)


def driver_error(work: Work, job: str) -> QwenOpsError | None:
    """What the driver of this very job said of its own failure."""
    for node in work.nodes:
        facts = Events(Path(work.context.events), node).read()
        if facts.get("job") == job and "error" in facts:
            return described_error(facts["error"])
    return None


def _nodes(task: Task, spec: TaskSpec, context: RunContext) -> list[str]:
    later = (read_slice(one["stage"], one["slice"], context).node for one in spec.get("then", ()))
    return [task.slice.node, *later]


def owner_of(pod_name: str, kube: Kube) -> dict[str, str]:
    """What owns the step's pod; the pod itself where nothing does, nothing outside a pod."""
    pod = kube.pod(pod_name) if pod_name else None
    if pod is None:
        return {}
    for owner in pod.metadata.owner_references or []:
        if owner.controller:
            return {"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid}
    return {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid}
