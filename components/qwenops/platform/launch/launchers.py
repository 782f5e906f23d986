"""Who runs a stage that is not finished yet: this machine, or a RayJob. The placement chooses, per area.

A launcher gets a task whose artifact is missing and returns the published artifact; whether finished work is
reused is decided before, by its manifest, in the same way for both.
"""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from qwenops.contracts.manifest import read_manifest
from qwenops.errors import StageError
from qwenops.platform.context import RunContext
from qwenops.platform.launch.stage_server import is_up, request
from qwenops.platform.stage.events import Events, describe_error, described_error
from qwenops.platform.stage.produce import produce
from qwenops.platform.stage.task import Published, Task, TaskSpec
from qwenops.platform.storage import addresses
from qwenops.recipe.codec import decode
from qwenops.recipe.placement import RayCluster

if TYPE_CHECKING:
    from qwenops.platform.kubernetes.client import Kube
    from qwenops.platform.kubernetes.objects import Json

_WORKFLOW_SECONDS = 30
"""Longest outage of the API server that is sat out to learn why a run failed (house choice: no reason to wait)."""


class LaunchRequest(TaskSpec):
    """What a launcher is told: the task, and the name of its node."""

    node: str


class Launcher(Protocol):
    """Runs one stage to its published artifact."""

    def launch(self, task: Task, spec: LaunchRequest, context: RunContext) -> Published:
        """Run a stage.

        Args:
            task: What is to run.
            spec: The same as it travels to another process.
            context: Where the step runs.

        Raises:
            QwenOpsError: of the family that says whose fault it was; recorded among the run's events.
        """
        ...


class LocalLauncher:
    """Runs the stage in a fork of the warm stage server where there is one, else in this process."""

    def launch(self, task: Task, spec: LaunchRequest, context: RunContext) -> Published:
        """Run the stage here; see `Launcher.launch`."""
        if not context.stage_server:
            return produce(task, context)
        sharing = spec["node"] in context.sharing.split(",")
        try:
            answer = request(context.stage_server, {**spec, "sharing": sharing})
        except StageError as error:
            # The process that would say so is gone; with the server gone too, the run was ended and no stage failed.
            if is_up(context.stage_server):
                Events(Path(context.events), spec["node"]).write(
                    status="failed", finished=time.time(), error=describe_error(error)
                )
            raise
        if "error" in answer:
            raise described_error(answer["error"])
        path = Path(answer["path"])
        return Published(path, read_manifest(path), reused=False, address=addresses.address_of(path, context))


def select_launcher(context: RunContext) -> Launcher:
    """The launcher that the placement chose for this step: `rayjob` where it names a Ray cluster, else `local`."""
    if not context.cluster:
        return LocalLauncher()
    cluster = decode(RayCluster, context.cluster, where="cluster")
    kube = _connect(context, cluster.outage_seconds)
    # The Kubernetes client, as in `_connect`.
    from qwenops.platform.kubernetes import ray_job

    return ray_job.RayJobLauncher(kube, cluster)


def delete_jobs(context: RunContext, *, wait_seconds: float = 60) -> tuple[str, ...]:
    """Delete what RayJobs a pipeline run has left, whatever its state; for the run's exit handler.

    Args:
        context: Names the run; nothing happens outside a cluster.
        wait_seconds: How long to wait for each to be gone.

    Returns:
        The names of the jobs deleted.
    """
    if not context.pod_namespace or not context.run_id:
        return ()
    # The Kubernetes client, as in `_connect`.
    from qwenops.platform.kubernetes import ending

    return ending.release_run(_connect(context, wait_seconds), context.run_id, wait_seconds=wait_seconds)


def read_workflow(context: RunContext) -> "Json | None":
    """The Argo Workflow that this step's pod belongs to; None outside a cluster, or where something else owns the pod.

    Raises:
        PlatformError: it may not be read, or the API server does not answer.
    """
    if not context.pod_namespace or not context.pod_name:
        return None
    # The Kubernetes client, as in `_connect`.
    from qwenops.platform.kubernetes import ray_work

    kube = _connect(context, _WORKFLOW_SECONDS)
    owner = ray_work.owner_of(context.pod_name, kube)
    return kube.workflow(owner["name"]) if owner.get("kind") == "Workflow" else None


def _connect(context: RunContext, outage_seconds: float) -> "Kube":
    # The Kubernetes client takes a second to import, which a laptop need not pay.
    from qwenops.platform.kubernetes import client as kube

    kubeconfig = os.environ.get("QWENOPS_KUBECONFIG", "")
    return kube.connect(kubeconfig, context.pod_namespace, outage_seconds=outage_seconds)
