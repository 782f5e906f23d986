"""SIGTERM as an exception, and the question that follows it: was the run cancelled, or only this pod evicted?"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from qwenops.errors import PlatformError
from qwenops.platform.kube import Kube

_EXIT_STATUS = 128 + signal.SIGTERM


class Terminated(SystemExit):
    """This process was asked to end; exit status 143, as a shell would report it."""

    def __init__(self) -> None:
        super().__init__(_EXIT_STATUS)


@contextmanager
def termination_raises() -> Iterator[None]:
    """Raise `Terminated` in the main thread on SIGTERM; a second SIGTERM does not interrupt the cleanup."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


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
