"""The driver's log comes from a real Ray head, as KubeRay's `HTTPMode` leaves it there."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from qwenops.platform.kubernetes.driver_logs import DriverFollower
from qwenops.platform.kubernetes.log_follower import LogFile, split

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        importlib.util.find_spec("aiohttp_cors") is None, reason="no Ray dashboard here: pip install 'ray[default]'"
    ),
]

SAY = "import time\nfor i in range(5):\n    print('line', i, flush=True)\n    time.sleep(0.3)"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(address, path, body=None):
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(f"http://{address}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def insist(call, seconds=150):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except OSError as error:
            if time.monotonic() > deadline:
                raise AssertionError(error.read() if isinstance(error, urllib.error.HTTPError) else error) from error
            time.sleep(0.5)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """Address of the dashboard of a Ray head of its own."""
    address, gcs = f"127.0.0.1:{free_port()}", free_port()
    host, _, port = address.partition(":")
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={gcs}"]
    command += [
        "--include-dashboard=true",
        f"--node-ip-address={host}",
        f"--dashboard-host={host}",
        f"--dashboard-port={port}",
        "--num-cpus=1",
    ]
    command += [f"--temp-dir={tmp_path_factory.mktemp('r')}", "--object-store-memory=100000000"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # A Ray of this user leaves a token in the home folder, and with one there a head asks for it. A fresh pod has none.
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "PATH": path}
    process = subprocess.Popen(command, env=os.environ | settings)
    # Answers before it can run a job: its agent comes last.
    insist(lambda: ask(address, "/api/jobs/", {"submission_id": "first", "entrypoint": "true"}))
    yield address
    process.terminate()
    process.wait(60)


def test_log_of_a_job_is_followed_to_its_end_and_gone_on_with(head, tmp_path):
    shown = []
    follower = DriverFollower(head, "http-job", LogFile(tmp_path / "job.log", shown.append))
    # Before the job is there, as a step that is faster than the operator.
    follower.start()
    body = {"submission_id": "http-job", "entrypoint": f'{sys.executable} -c "{SAY}"'}
    assert ask(head, "/api/jobs/", body)["submission_id"] == "http-job"
    deadline = time.monotonic() + 600
    while not any(line.startswith("line 1") for line in shown):
        assert time.monotonic() < deadline, shown
        time.sleep(0.05)
    follower.stop()
    follower.join(300)
    again = DriverFollower(head, "http-job", LogFile(tmp_path / "job.log", shown.append))
    again.start()
    again.join(600)
    assert not again.is_alive()
    lines = [line for line in shown if line.startswith("line")]
    assert lines == [f"line {number}" for number in range(5)]
    assert [split(line)[1] for line in (tmp_path / "job.log").read_text().splitlines()] == shown
