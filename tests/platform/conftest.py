"""A stage of a package of its own, an API server double, and the operator's part played to a script."""

import contextlib
import shlex
import threading
import time

import pytest
from kubernetes import client
from tests.platform.kube_server import KubeServer, now
from tests.platform.toy import toy_stage

from qwenops.errors import QwenOpsError
from qwenops.platform.kubernetes.client import Kube
from qwenops.platform.launch import driver

RUN = """
import os
from qwenops.errors import ContractError
def run(config, *, stage, source=None):
    steps = stage.scratch / "steps"
    done = int(steps.read_text()) if steps.exists() else 0
    for step in range(done, 4):
        steps.write_text(str(step + 1))
        (stage.context.cache and open(os.path.join(stage.context.events, "steps.log"), "a")).write(f"{step}\\n")
        if config.fault == "lost" and step == 1 and done == 0:
            raise MemoryError("the head pod is gone")
    if config.fault == "contract":
        raise ContractError("bad rows")
    base = int((source / "value.txt").read_text()) if source else 0
    (stage.out / "value.txt").write_text(str(config.value + base))
    stage.count(read=3, kept=2, dropped={"short": 1})
"""


@pytest.fixture
def counter(tmp_path, monkeypatch):
    """A stage `toy.counter` of four steps that resumes from its scratch folder, and the environment of a run."""
    with toy_stage(tmp_path, monkeypatch, RUN) as folder:
        yield folder


@pytest.fixture
def server():
    """A running API server double."""
    running = KubeServer()
    yield running
    running.close()


@pytest.fixture
def kube(server):
    """The real client, pointed at the double."""
    settings = client.Configuration()
    settings.host = server.url
    return Kube(client.ApiClient(settings), "team", outage_seconds=10, watch_seconds=1)


class Operator(threading.Thread):
    """Plays KubeRay to a script: what to do with the first RayJob it sees, the second, and so on.

    A script is a list of steps: a dictionary is a status update, a callable gets the operator and the job's name.
    """

    def __init__(self, server: KubeServer, *scripts: list) -> None:
        super().__init__(daemon=True)
        self.server, self.scripts = server, list(scripts)
        self.seen: list[str] = []
        self.errors: list[BaseException] = []
        self._stopped = threading.Event()

    def __enter__(self) -> "Operator":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self._stopped.set()
        self.join(300)
        assert self.errors == []

    def run(self) -> None:
        while not self._stopped.wait(0.01):
            fresh = [n for (kind, n) in list(self.server.store.objects) if kind == "rayjobs" and n not in self.seen]
            for name in fresh:
                self.seen.append(name)
                if self.scripts:
                    self._play(name, self.scripts.pop(0))

    def _play(self, name: str, script: list) -> None:
        try:
            for step in script:
                if ("rayjobs", name) not in self.server.store.objects:
                    return
                if callable(step):
                    step(self, name)
                else:
                    self.server.store.status(name, **step)
                time.sleep(0.03)
        except (AssertionError, KeyError) as error:
            self.errors.append(error)


INITIALIZING = {"jobDeploymentStatus": "Initializing", "jobId": "j", "rayClusterName": "c", "startTime": now()}
RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
COMPLETE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
APP_FAILED = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": "exit code 1"}


def drive(operator: Operator, name: str) -> None:
    """Run the job's own entrypoint to its end, as the submitter and the head would."""
    entrypoint = operator.server.store.objects["rayjobs", name]["spec"]["entrypoint"]
    assert shlex.split(entrypoint)[:3] == ["python", "-m", "qwenops.platform.launch.driver"]
    with contextlib.suppress(QwenOpsError):
        driver.run(entrypoint.split()[3])


def admit(operator: Operator, name: str) -> None:
    """Kueue finds quota."""
    job = operator.server.store.objects["rayjobs", name]
    job["spec"]["suspend"] = False
    operator.server.store.put("rayjobs", job)


def start_pod(operator: Operator, name: str, container: str = "ray-job-submitter", pod: str = "") -> str:
    """Put a pod of the job there, with a log to follow; returns its name."""
    job = operator.server.store.objects["rayjobs", name]
    pod = pod or f"{name}-submit"
    labels = {"job-name": name} if container == "ray-job-submitter" else {"ray.io/cluster": "c"}
    owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": name, "uid": job["metadata"]["uid"]}
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod, "labels": labels, "ownerReferences": [owner]},
        "spec": {"containers": [{"name": container, "image": "i"}]},
        "status": {"phase": "Running"},
    }
    operator.server.store.add("pods", body)
    return pod


def kubeconfig(url: str) -> str:
    """A kubeconfig for the server at `url`, with a token and the namespace `team`."""
    return f"""
apiVersion: v1
kind: Config
current-context: here
clusters: [{{name: c, cluster: {{server: "{url}"}}}}]
users: [{{name: u, user: {{token: secret-token}}}}]
contexts: [{{name: here, context: {{cluster: c, user: u, namespace: team}}}}]
"""
