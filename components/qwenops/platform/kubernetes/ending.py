"""How a run's jobs end before their time: the question that follows a SIGTERM, and what the exit handler does."""

from qwenops.errors import PlatformError
from qwenops.platform.kubernetes.client import Kube
from qwenops.platform.kubernetes.ray_manifest import ENDED, RUN, label_value


def is_evicted(kube: Kube, pod_name: str) -> bool:
    """Whether the cluster is taking this pod away (drain, preemption, node shutdown), and not a person ending the run.

    Kubernetes marks such a pod with the condition `DisruptionTarget`; a cancelled run's pod has none. False when the
    API server does not say.
    """
    try:
        pod = kube.pod(pod_name) if pod_name else None
    except PlatformError:
        return False
    conditions = (pod.status.conditions if pod is not None and pod.status else None) or []
    return any(condition.type == "DisruptionTarget" and condition.status == "True" for condition in conditions)


def release_run(kube: Kube, run: str, *, wait_seconds: float) -> tuple[str, ...]:
    """Suspend, then delete every RayJob of a pipeline run, whatever its state; returns their names."""
    names = tuple(job["metadata"]["name"] for job in kube.jobs(f"{RUN}={label_value(run)}"))
    for name in names:
        kube.suspend_job(name, ENDED)
    for name in names:
        kube.delete_job(name, wait_seconds=wait_seconds)
    return names
