"""A log is followed over breaks and over processes: no line twice, none lost, none half."""

import asyncio
import contextlib
import socket
import threading
import time
from types import SimpleNamespace

import pytest
from aiohttp import web
from tests.platform.conftest import COMPLETE, INITIALIZING, RUNNING, Operator, drive, start_pod
from tests.platform.test_ray_job import launch

from qwenops.platform.kubernetes.driver_logs import DriverFollower, dashboard
from qwenops.platform.kubernetes.log_follower import LogFile, split
from qwenops.recipe.placement import RayCluster


def texts(path):
    return [split(line)[1] for line in path.read_text().splitlines()]


def test_file_goes_on_after_its_last_whole_line(tmp_path):
    path, shown = tmp_path / "folder" / "pod.log", []
    log = LogFile(path, shown.append)
    for number in range(3):
        log.append(f"2026-01-01T00:00:0{number}.000000000", f"line {number}")
    with path.open("a") as stream:
        stream.write("2026-01-01T00:00:03.000000000Z half of a li")
    again = LogFile(path, shown.append)
    assert (again.last, again.lines) == ("2026-01-01T00:00:02.000000000", 3)
    again.append("2026-01-01T00:00:03.000000000", "half of a line, whole")
    assert texts(path) == ["line 0", "line 1", "line 2", "half of a line, whole"]
    assert shown == ["line 0", "line 1", "line 2", "half of a line, whole"]


def test_tail_is_of_every_process_and_without_stamps(tmp_path):
    log = LogFile(tmp_path / "pod.log", lambda _: None)
    assert log.tail(2) == []
    for number in range(5):
        log.append(f"2026-01-01T00:00:0{number}.000000000", f"line {number}")
    assert LogFile(tmp_path / "pod.log", lambda _: None).tail(2) == ["line 3", "line 4"]


class Dashboard:
    """A head's dashboard as a client of its job API sees it, on loopback: a job, its log from the beginning."""

    def __init__(self, *lines: str) -> None:
        self.log, self.status, self.cut_after, self.connections = (
            "".join(f"{line}\n" for line in lines),
            "RUNNING",
            0,
            0,
        )
        self._loop, self._ready = asyncio.new_event_loop(), threading.Event()
        self.port, self.token = 0, ""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._ready.wait(300)

    def end(self, status: str) -> None:
        self.status = status

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(300)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application(middlewares=[self._authenticate])
        app.router.add_get("/api/jobs/{job}/logs/tail", self._tail)
        app.router.add_get("/api/jobs/{job}", self._job)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", self.port).start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    @web.middleware
    async def _authenticate(self, request: web.Request, handler) -> web.StreamResponse:
        """As Ray's `_private/authentication/http_token_authentication.py` does in mode token."""
        shown = request.headers.get("Authorization")
        if self.token and shown is None:
            raise web.HTTPUnauthorized
        if self.token and shown != f"Bearer {self.token}":
            raise web.HTTPForbidden
        return await handler(request)

    async def _job(self, request: web.Request) -> web.Response:
        if request.match_info["job"] != "j":
            raise web.HTTPNotFound
        return web.json_response({"submission_id": "j", "status": self.status})

    async def _tail(self, request: web.Request) -> web.WebSocketResponse:
        if request.match_info["job"] != "j":
            raise web.HTTPNotFound
        stream = web.WebSocketResponse()
        await stream.prepare(request)
        self.connections += 1
        sent = 0
        with contextlib.suppress(ConnectionError):
            while True:
                ended, text = self.status != "RUNNING", self.log
                while sent < len(text):
                    # Pieces end where they end, as the dashboard's do after 20 000 characters.
                    await stream.send_str(text[sent : sent + 7])
                    sent += 7
                    if self.cut_after and sent >= self.cut_after:
                        self.cut_after = 0
                        request.transport.abort()
                        return stream
                sent = min(sent, len(text))
                if ended:
                    break
                await asyncio.sleep(0.02)
            await stream.close()
        return stream


@pytest.fixture
def head():
    """A dashboard whose job has said three lines."""
    running = Dashboard("step 0", "step 1", "step 2")
    yield running
    running.close()


def follow(head, path, shown):
    follower = DriverFollower(f"127.0.0.1:{head.port}", "j", LogFile(path, shown.append))
    follower.start()
    return follower


def until(ready):
    deadline = time.monotonic() + 300
    while not ready():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def test_driver_is_followed_over_a_break_to_its_end(head, tmp_path):
    shown = []
    head.cut_after = 10
    follower = follow(head, tmp_path / "driver.log", shown)
    until(lambda: len(shown) == 3)
    head.log += "step 3\nno newline at the end"
    head.end("FAILED")
    follower.join(300)
    assert not follower.is_alive()
    assert head.connections > 1
    assert shown == ["step 0", "step 1", "step 2", "step 3", "no newline at the end"]
    assert texts(tmp_path / "driver.log") == shown


def test_driver_is_followed_by_the_next_process_from_where_the_last_one_stopped(head, tmp_path):
    first, second = [], []
    follower = follow(head, tmp_path / "driver.log", first)
    until(lambda: len(first) == 3)
    follower.stop()
    follower.join(300)
    head.log += "step 3\n"
    head.end("SUCCEEDED")
    follow(head, tmp_path / "driver.log", second).join(300)
    assert second == ["step 3"]
    assert texts(tmp_path / "driver.log") == ["step 0", "step 1", "step 2", "step 3"]


def test_driver_is_followed_with_the_token_of_the_steps_environment(head, tmp_path, monkeypatch):
    head.token, shown = "of-this-cluster", []
    head.end("SUCCEEDED")
    follower = follow(head, tmp_path / "driver.log", shown)
    follower.join(0.5)
    assert (follower.is_alive(), shown) == (True, [])
    monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
    follower.join(300)
    assert shown == ["step 0", "step 1", "step 2"]


def test_driver_that_is_not_submitted_yet_is_waited_for(head, tmp_path):
    follower = DriverFollower(f"127.0.0.1:{head.port}", "other", LogFile(tmp_path / "driver.log", print))
    follower.start()
    follower.join(0.5)
    assert follower.is_alive()
    follower.stop()
    follower.join(300)
    assert not follower.is_alive()


def test_dashboard_is_found_by_the_port_that_the_head_names():
    port = SimpleNamespace(name="dashboard", container_port=9000)
    head = SimpleNamespace(name="ray-head", ports=[port])
    pod = SimpleNamespace(spec=SimpleNamespace(containers=[head]), status=SimpleNamespace(pod_ip="10.0.0.7"))
    assert dashboard(pod) == "10.0.0.7:9000"
    pod.status.pod_ip, head.ports = "fd00::7", None
    assert dashboard(pod) == "[fd00::7]:8265"
    pod.status.pod_ip = None
    assert dashboard(pod) == ""


def test_http_mode_streams_the_driver_from_the_head(counter, server, kube, head, capsys):
    def begin(operator, name):
        pod = start_pod(operator, name, "ray-head", f"{name}-head")
        body = server.store.objects["pods", pod]
        body["spec"]["containers"][0]["ports"] = [{"name": "dashboard", "containerPort": head.port}]
        body["status"]["podIP"] = "127.0.0.1"
        server.store.put("pods", body)
        time.sleep(1.5)

    script = [INITIALIZING, RUNNING, begin, drive, lambda *_: head.end("SUCCEEDED"), COMPLETE]
    with Operator(server, script) as operator:
        launch(kube, RayCluster(submission_mode="HTTPMode", deletion_seconds=5), value=1)
    said = [line for line in capsys.readouterr().out.splitlines() if "driver]" in line]
    assert said == [f"[counter driver] step {number}" for number in range(3)]
    (kept,) = (counter / "store" / "logs" / "run-1" / operator.seen[0]).glob("*.job-driver.log")
    assert texts(kept) == ["step 0", "step 1", "step 2"]


@pytest.mark.parametrize("mode", ["HTTPMode", "SidecarMode"])
def test_head_that_is_gone_before_its_log_is_read_is_refused(mode):
    with pytest.raises(ValueError, match="ttl_seconds_after_finished is at least 10"):
        RayCluster(submission_mode=mode, ttl_seconds_after_finished=9)
    RayCluster(submission_mode="K8sJobMode", ttl_seconds_after_finished=0)
