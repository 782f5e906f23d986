"""The driver's log of a job that no pod submits: from the dashboard of its head, as `ray job logs --follow` reads it.

In `HTTPMode` KubeRay submits the job itself, so no pod's log holds what the driver says. The head is asked by its
pod's address and the port its container names: that needs no Service, no name look-up and no further right, and the
chart's network rules allow it to steps. The alternative, the API server's proxy, would need `pods/proxy`, which opens
every port of every pod of the namespace. The dashboard sends the log from its beginning and without time stamps, so
what arrived before is counted off, and a line gets the time of its arrival. Where Ray asks for a token, it is Ray's own
variable in the step's environment.
"""

import json
import os
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime

import websocket
from kubernetes.client import V1Pod

from qwenops.platform.kubernetes.log_follower import Follower, LogFile, split

DRIVER = "job-driver"
"""Ending of the log file's name, as Ray calls the file on the head."""
_PORT_NAME, _PORT = "dashboard", 8265
_CONNECT_SECONDS, _READ_SECONDS, _SECONDS_BETWEEN_PINGS = 5, 1, 30
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


def dashboard(pod: V1Pod) -> str:
    """Host and port of the dashboard in a head's pod; empty while the pod has no address."""
    (head,) = (container for container in pod.spec.containers if container.name == "ray-head")
    port = next((item.container_port for item in head.ports or [] if item.name == _PORT_NAME), _PORT)
    host = pod.status.pod_ip or ""
    return host and (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


class DriverFollower(Follower):
    """Follows the driver's log of one job.

    Args:
        address: Host and port of the dashboard.
        job: The job's submission id.
        log: Receives the lines.
    """

    # ValueError: an answer that is no JSON, from something else than a dashboard.
    breaks = (websocket.WebSocketException, OSError, ValueError)

    def __init__(self, address: str, job: str, log: LogFile) -> None:
        super().__init__(log)
        self._address, self._job = address, job

    def read(self) -> bool:
        """Append what is new until the dashboard closes the stream; True when the job has ended."""
        url = f"ws://{self._address}/api/jobs/{self._job}/logs/tail"
        socket = websocket.create_connection(url, timeout=_CONNECT_SECONDS, suppress_origin=True, header=_token())
        try:
            socket.settimeout(_READ_SECONDS)
            known = self.log.lines
            for number, line in enumerate(self._lines(socket)):
                if number >= known:
                    self.log.append(_now(), line)
        finally:
            socket.close(timeout=0)
            # After the other side's close frame `close` does nothing and would leave the socket to the collector.
            socket.shutdown()
        return self.stopped.is_set() or self._ended()

    def _lines(self, socket: websocket.WebSocket) -> Iterator[str]:
        rest, quiet = "", 0
        while not self.stopped.is_set():
            try:
                kind, piece = socket.recv_data()
            except websocket.WebSocketTimeoutException:
                quiet += _READ_SECONDS
                if quiet % _SECONDS_BETWEEN_PINGS == 0:
                    # A head that is gone without a word shows itself when it is spoken to.
                    socket.ping()
                continue
            if kind == websocket.ABNF.OPCODE_CLOSE:
                break
            *whole, rest = (rest + piece.decode("utf-8", errors="replace")).split("\n")
            yield from whole
        if rest and self._ended():
            yield rest

    def _ended(self) -> bool:
        request = urllib.request.Request(f"http://{self._address}/api/jobs/{self._job}", headers=_token())
        with urllib.request.urlopen(request, timeout=_CONNECT_SECONDS) as answer:
            return json.load(answer)["status"] in _ENDED


def _token() -> dict[str, str]:
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _now() -> str:
    return split(datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"))[0]
