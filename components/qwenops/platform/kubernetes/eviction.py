"""The question that follows a SIGTERM: was the run cancelled, or only this pod evicted?"""

from qwenops.errors import PlatformError
from qwenops.platform.kubernetes.client import Kube


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
