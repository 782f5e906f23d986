"""Logs of real pods are followed to their end; needs nodes."""

import time

import pytest
from kubernetes import client

from qwenops.platform.kubernetes.log_follower import split
from qwenops.platform.kubernetes.logs import SUBMITTER, LogStreams
from qwenops.platform.kubernetes.ray_manifest import Identity, ray_job

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SAY = "import time\nfor i in range(5):\n    print('line', i, flush=True)\n    time.sleep(0.5)"


@pytest.mark.usefixtures("real")
def test_log_of_a_pod_is_followed_from_before_its_start_to_its_end(cluster, namespace, ray_cluster, tmp_path, capsys):
    identity = Identity("run", "logs", "f" * 64)
    template = ray_job(ray_cluster.model_copy(update={"submission_mode": "K8sJobMode"}), identity, 0, "x", "{}")
    body = template["spec"]["submitterPodTemplate"]
    body["metadata"]["name"] = "talker"
    body["spec"]["containers"][0]["command"] = ["python", "-c", SAY]
    client.CoreV1Api(cluster.api()).create_namespaced_pod(namespace, body)
    kube = cluster.kube(namespace)
    logs = LogStreams(kube, tmp_path, "logs")
    deadline = time.monotonic() + 300
    while kube.pod("talker").status.phase not in ("Succeeded", "Failed"):
        assert time.monotonic() < deadline, kube.events(("talker",))
        logs.attend(kube.pods("qwenops.io/stage=logs"))
        time.sleep(0.5)
    logs.close(20)
    kept = (tmp_path / f"talker.{SUBMITTER}.log").read_text().splitlines()
    assert [split(line)[1] for line in kept] == [f"line {i}" for i in range(5)]
    assert all(split(line)[0] for line in kept)
    assert "[logs driver] line 4" in capsys.readouterr().out
