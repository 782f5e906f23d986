"""Follow the logs of a RayJob: to the step's output, and to one file per container in the artifact store.

One thread per container. A stream that breaks is opened again from the last line's time stamp, so that a restarted API
server, or a restarted step, neither loses nor repeats a line. A pod that is not started yet, or gone, is no error: the
job's own status decides what happens, the log only tells.
"""

import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from kubernetes.client import V1Pod
from kubernetes.client.rest import ApiException
from urllib3 import HTTPResponse

from qwenops.platform.kubernetes.client import TRANSIENT, Kube
from qwenops.platform.kubernetes.driver_logs import DRIVER, DriverFollower, dashboard
from qwenops.platform.kubernetes.log_follower import Follower, LogFile, split

SUBMITTER, HEAD = "ray-job-submitter", "ray-head"
_ROLES = {SUBMITTER: "driver", DRIVER: "driver", HEAD: "head", "ray-worker": "worker"}
_TAIL_LINES = 25
_CONNECT_SECONDS, _READ_SECONDS = 5, 30
# A node's clock may differ from this one's; lines that come twice are known by their time stamps.
_SLACK_SECONDS = 60

Key = tuple[str, str]


class _Since(TypedDict, total=False):
    since_seconds: int


class LogStreams:
    """The log streams of one RayJob.

    Args:
        kube: The namespace.
        folder: Receives `<pod>.<container>.log`; made when the first line arrives. What an earlier process of the step
            left there is gone on with.
        label: Put in front of each line of the step's output.
    """

    def __init__(self, kube: Kube, folder: Path, label: str) -> None:
        self._kube, self._folder, self._label = kube, folder, label
        self._logs: dict[Key, LogFile] = {}
        self._threads: dict[Key, Follower] = {}

    def attend(self, pods: list[V1Pod]) -> None:
        """Start to follow each container of `pods` that is not followed yet, or was restarted."""
        for pod in pods:
            for container in pod.spec.containers:
                key = (pod.metadata.name, container.name)
                before = self._threads.get(key)
                ended = before is not None and not before.is_alive()
                if container.name in _ROLES and (not before or (ended and pod.status.phase == "Running")):
                    self._start(key, PodFollower(self._kube, key, self._log(key)))

    def attend_driver(self, pods: list[V1Pod], job: str) -> None:
        """Start to follow the driver of a Ray job through the running head among `pods`, where no pod submits it."""
        for pod in pods:
            key = (pod.metadata.name, DRIVER)
            is_head = any(container.name == HEAD for container in pod.spec.containers)
            if job and is_head and key not in self._threads and (address := dashboard(pod)):
                self._start(key, DriverFollower(address, job, self._log(key)))

    def close(self, seconds: float) -> None:
        """Give streams that still flow `seconds` to end, then cut them off."""
        for (_, container), thread in self._threads.items():
            if _ROLES[container] == "driver":
                thread.join(seconds)
        for thread in self._threads.values():
            thread.stop()
        for thread in self._threads.values():
            thread.join(seconds)

    def tail(self) -> str:
        """The last lines of the driver; empty when it said nothing."""
        drivers = [log for (_, container), log in self._logs.items() if _ROLES[container] == "driver"]
        newest = max(drivers, key=lambda log: log.last, default=None)
        return "\n".join(newest.tail(_TAIL_LINES)) if newest else ""

    def _start(self, key: Key, thread: Follower) -> None:
        self._threads[key] = thread
        thread.start()

    def _log(self, key: Key) -> LogFile:
        if key not in self._logs:
            role, path = _ROLES[key[1]], self._folder / f"{key[0]}.{key[1]}.log"

            def show(line: str) -> None:
                sys.stdout.write(f"[{self._label} {role}] {line}\n")
                sys.stdout.flush()

            log = self._logs[key] = LogFile(path, show)
            if log.lines and role == "driver":
                print(f"[{self._label}] its log goes on after the {log.lines} lines in {path}", flush=True)
        return self._logs[key]


class PodFollower(Follower):
    """Follows one container of a pod."""

    # ValueError: urllib3's answer to a read of a response that `stop` closed.
    breaks = (*TRANSIENT, ValueError)

    def __init__(self, kube: Kube, key: Key, log: LogFile) -> None:
        super().__init__(log)
        self._kube, (self._pod, self._container) = kube, key
        self._response: HTTPResponse | None = None

    def stop(self) -> None:
        """End the thread, also while it waits for a line."""
        super().stop()
        response = self._response
        if response is not None:
            with contextlib.suppress(Exception):
                response.shutdown()

    def read(self) -> bool:
        """Stream to the end; True when the container has ended, or its pod is gone."""
        last = self.log.last
        options: _Since = {"since_seconds": _age(last) + _SLACK_SECONDS} if last else {}
        try:
            response = self._response = self._kube.core.read_namespaced_pod_log(
                self._pod,
                self._kube.namespace,
                container=self._container,
                follow=True,
                timestamps=True,
                _preload_content=False,
                _request_timeout=(_CONNECT_SECONDS, _READ_SECONDS),
                **options,
            )
            try:
                for raw in _lines(response):
                    stamp, text = split(raw)
                    if stamp > self.log.last or not stamp:
                        self.log.append(stamp or self.log.last, text)
                    if self.stopped.is_set():
                        return True
            finally:
                response.release_conn()
            return self._ended()
        except ApiException as error:
            if error.status == 404:
                return True
            raise

    def _ended(self) -> bool:
        pod = self._kube.core.read_namespaced_pod(self._pod, self._kube.namespace, _request_timeout=_READ_SECONDS)
        states = pod.status.container_statuses or []
        return any(state.name == self._container and state.state.terminated for state in states)


def _lines(response: HTTPResponse) -> Iterator[str]:
    rest = b""
    for piece in response.stream(amt=None, decode_content=False):
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line.decode("utf-8", errors="replace") for line in whole)
    if rest:
        yield rest.decode("utf-8", errors="replace")


def _age(stamp: str) -> int:
    """Whole seconds since `stamp`, at least 1."""
    then = datetime.fromisoformat(stamp[:19]).replace(tzinfo=UTC)
    return max(int((datetime.now(UTC) - then).total_seconds()) + 1, 1)
