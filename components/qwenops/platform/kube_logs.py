"""Follow the logs of a RayJob's pods: to the step's output, and to one file per container in the artifact store.

One thread per container. A stream that breaks is opened again from the last line's time stamp, so that a
restarted API server neither loses nor repeats a line. A pod that is not started yet, or gone, is no error: the
job's own status decides what happens, the log only tells.
"""

import contextlib
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kubernetes.client.rest import ApiException

from qwenops.platform.kube import TRANSIENT, Kube

SUBMITTER = "ray-job-submitter"
_CONTAINERS = {SUBMITTER: "driver", "ray-head": "head", "ray-worker": "worker"}
_TAIL_LINES = 25
_READ_SECONDS = 30
_SLACK_SECONDS = 5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_STAMP = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?Z ?(.*)$", re.DOTALL)


class LogStreams:
    """The log streams of one RayJob.

    Args:
        kube: The namespace.
        folder: Receives `<pod>.<container>.log`; made when the first line arrives.
        label: Put in front of each line of the step's output.
    """

    def __init__(self, kube: Kube, folder: Path, label: str) -> None:
        self._kube, self._folder, self._label = kube, folder, label
        self._threads: dict[tuple[str, str], _Follower] = {}
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def attend(self, pods: list[Any]) -> None:
        """Start to follow each container of `pods` that is not followed yet, or was restarted."""
        for pod in pods:
            for container in pod.spec.containers:
                key = (pod.metadata.name, container.name)
                before = self._threads.get(key)
                ended = before is not None and not before.is_alive()
                if container.name in _CONTAINERS and (not before or (ended and pod.status.phase == "Running")):
                    last = before.last if before else ""
                    self._threads[key] = _Follower(self._kube, key, self._receiver(key), last)
                    self._threads[key].start()

    def close(self, seconds: float) -> None:
        """Give streams that still flow `seconds` to end, then cut them off."""
        finite = [thread for thread in self._threads.values() if thread.container == SUBMITTER]
        for thread in finite:
            thread.join(seconds)
        for thread in self._threads.values():
            thread.stop()
        for thread in self._threads.values():
            thread.join(seconds)

    def tail(self) -> str:
        """The last lines of the driver; empty when it said nothing."""
        return "\n".join(self._tail)

    def _receiver(self, key: tuple[str, str]) -> Any:
        pod, container = key
        path = self._folder / f"{pod}.{container}.log"
        role = _CONTAINERS[container]

        def receive(line: str) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
            if container == SUBMITTER:
                self._tail.append(line)
            sys.stdout.write(f"[{self._label} {role}] {line}\n")
            sys.stdout.flush()

        return receive


class _Follower(threading.Thread):
    """Follows one container until its log ends or `stop` is called."""

    def __init__(self, kube: Kube, key: tuple[str, str], receive: Any, last: str) -> None:
        super().__init__(daemon=True, name=f"log-{key[0]}")
        self.pod, self.container = key
        self._kube, self._receive = kube, receive
        self._stopped = threading.Event()
        self._response: Any = None
        self.last = last

    def run(self) -> None:
        """Read, and read again after a break."""
        pause = _FIRST_PAUSE
        while not self._stopped.is_set():
            before = self.last
            try:
                if self._read():
                    return
            except ApiException as error:
                if error.status == 404:
                    return
            except (*TRANSIENT, ValueError):
                # ValueError: urllib3's answer to a read of a response that `stop` closed.
                pass
            pause = _FIRST_PAUSE if self.last != before else min(pause * 2, _LONGEST_PAUSE)
            self._stopped.wait(pause)

    def stop(self) -> None:
        """End the thread, also while it waits for a line."""
        self._stopped.set()
        response = self._response
        if response is not None:
            with contextlib.suppress(Exception):
                response.shutdown()

    def _read(self) -> bool:
        """Stream to the end; True when the container has ended, so that nothing more can come."""
        options: dict[str, Any] = {"since_seconds": _age(self.last) + _SLACK_SECONDS} if self.last else {}
        self._response = self._kube.core.read_namespaced_pod_log(
            self.pod,
            self._kube.namespace,
            container=self.container,
            follow=True,
            timestamps=True,
            _preload_content=False,
            _request_timeout=(_SLACK_SECONDS, _READ_SECONDS),
            **options,
        )
        try:
            for raw in _lines(self._response):
                stamp, text = _split(raw)
                if stamp > self.last or not stamp:
                    self.last = stamp or self.last
                    self._receive(text)
                if self._stopped.is_set():
                    return True
        finally:
            self._response.release_conn()
        return self._ended()

    def _ended(self) -> bool:
        pod: Any = self._kube.core.read_namespaced_pod(self.pod, self._kube.namespace, _request_timeout=_READ_SECONDS)
        states = pod.status.container_statuses or []
        return any(state.name == self.container and state.state.terminated for state in states)


def _lines(response: Any) -> Iterator[str]:
    rest = b""
    for piece in response.stream(amt=None, decode_content=False):
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line.decode("utf-8", errors="replace") for line in whole)
    if rest:
        yield rest.decode("utf-8", errors="replace")


def _split(raw: str) -> tuple[str, str]:
    """Time stamp, padded so that stamps compare as text, and the line itself."""
    found = _STAMP.match(raw)
    if not found:
        return "", raw
    return f"{found[1]}.{(found[2] or ''):0<9}", found[3]


def _age(stamp: str) -> int:
    """Whole seconds since `stamp`, at least 1."""
    then = datetime.fromisoformat(stamp[:19]).replace(tzinfo=UTC)
    return max(int((datetime.now(UTC) - then).total_seconds()) + 1, 1)
