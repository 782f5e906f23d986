"""`doctor --cluster` with the real Kubernetes client against an API server on loopback."""

import json
from contextlib import contextmanager

import pytest
from kubernetes import client
from tests.dags.kubeflow_server import JsonHandler
from tests.platform.servers import serve

from qwenops.errors import PlatformError
from qwenops_pipelines.doctor import check_cluster, report
from qwenops_pipelines.placements import by_name

SLOW = "/apis/storage.k8s.io/v1/storageclasses/slow"
CLAIM = "/api/v1/namespaces/team/persistentvolumeclaims/qwenops-artifacts"
OPERATORS = "/apis/apps/v1/deployments"
NODES = "/api/v1/nodes"
PODS = "/api/v1/namespaces/team/pods"
KUEUE = "kueue.x-k8s.io"
GROUPS = ("kubeflow.org", "argoproj.io", "ray.io", KUEUE)


class Cluster:
    """What the API server knows, by path; reviews refuse `denied` (verb, resource), requests `forbidden` paths."""

    def __init__(self):
        container = {"name": "o", "image": "quay.io/kuberay/operator:v1.6.2"}
        operator = {"spec": {"selector": {}, "template": {"spec": {"containers": [container]}}}}
        self.groups = dict.fromkeys(GROUPS, "v1") | {KUEUE: "v1beta2"}
        self.denied, self.forbidden = set(), set()
        self.pod_state = {"running": {}}
        self.deleted = []
        self.answers = {
            "/version": {
                "gitVersion": "v1.34.1",
                "major": "1",
                "minor": "34",
                "buildDate": "",
                "compiler": "",
                "gitCommit": "",
                "gitTreeState": "",
                "goVersion": "",
                "platform": "",
            },
            "/api/v1/namespaces/kubeflow/services/ml-pipeline": {"metadata": {"name": "ml-pipeline"}},
            "/apis/ray.io/v1": {
                "groupVersion": "ray.io/v1",
                "resources": [self._kind("rayjobs"), self._kind("rayclusters")],
            },
            OPERATORS: {"items": [operator]},
            NODES: {"items": [{"status": {"allocatable": {"nvidia.com/gpu": "8"}}}]},
            CLAIM: {"spec": {"storageClassName": "fast"}, "status": {"phase": "Bound"}},
        }

    @staticmethod
    def _kind(name):
        return {"name": name, "kind": name, "namespaced": True, "singularName": "", "verbs": ["get"]}

    def answer(self, method, path, body):
        """(status, JSON) of one request."""
        if path == "/apis":
            entries = {name: {"groupVersion": f"{name}/{v}", "version": v} for name, v in self.groups.items()}
            return 200, {
                "groups": [{"name": name, "versions": [e], "preferredVersion": e} for name, e in entries.items()]
            }
        if path.endswith("/selfsubjectaccessreviews"):
            asked = body["spec"]["resourceAttributes"]
            resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
            return 201, {"spec": body["spec"], "status": {"allowed": (asked["verb"], resource) not in self.denied}}
        if path.startswith(PODS):
            return self._pod(method, path, body)
        if path.startswith(f"/apis/{KUEUE}/{self.groups.get(KUEUE)}/namespaces/team/localqueues/"):
            return 200, {"metadata": {"name": path.rsplit("/", 1)[1]}}
        if path in self.forbidden:
            return 403, {"message": "forbidden"}
        return (200, self.answers[path]) if path in self.answers else (404, {"message": "not found"})

    def _pod(self, method, path, body):
        if ("create", "pods") in self.denied:
            return 403, {"message": "forbidden"}
        if method == "POST":
            self.pod = body
            return 201, body
        if method == "DELETE":
            self.deleted.append(path.rsplit("/", 1)[1])
            return 200, {}
        status = {"name": "pull", "image": "i", "imageID": "sha256:1", "ready": True, "restartCount": 0}
        return 200, self.pod | {"status": {"containerStatuses": [status | {"state": self.pod_state}]}}


class _Handler(JsonHandler):
    def _answer(self, method):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.split("?")[0].rstrip("/")
        status, answer = self.server.cluster.answer(method, path, json.loads(body) if body else None)
        self._send(status, answer)


@contextmanager
def looked_at(cluster, pull_seconds=5.0):
    """Findings by name, of the placement h200_node in namespace team."""
    with serve(_Handler, cluster=cluster) as address:
        configuration = client.Configuration(host=address)
        configuration.retries = False
        with client.ApiClient(configuration) as api:
            yield {f.name: f for f in check_cluster(by_name("h200_node"), "team", api, pull_seconds)}


def starting(findings, word):
    return next(finding for name, finding in findings.items() if name.startswith(word))


def test_whole_cluster_is_ok_and_the_pulling_pod_is_gone(capsys):
    cluster = Cluster()
    with looked_at(cluster) as findings:
        assert {finding.state for finding in findings.values()} == {"ok"}, findings
    assert report(list(findings.values())) == 0
    assert "1.6" in starting(findings, "KubeRay").detail
    assert cluster.deleted == [cluster.pod["metadata"]["name"]]
    assert cluster.pod["spec"]["containers"][0]["securityContext"]["runAsNonRoot"] is True
    assert capsys.readouterr().out.count("\n") == len(findings)


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
def test_queue_is_asked_for_in_the_version_that_the_cluster_prefers(version):
    cluster = Cluster()
    cluster.groups[KUEUE] = version
    with looked_at(cluster) as findings:
        assert {f.state for name, f in findings.items() if name.startswith("Kueue")} == {"ok"}


def test_queue_is_missing_where_kueue_is():
    cluster = Cluster()
    del cluster.groups[KUEUE]
    with looked_at(cluster) as findings:
        missing = {name for name, finding in findings.items() if finding.state == "missing"}
    assert missing == {"Kueue queue qwenops"}


def lose(group):
    def change(cluster):
        del cluster.groups[group]

    return change


def answer(path, value):
    def change(cluster):
        cluster.answers[path] = value

    return change


def forget(path):
    def change(cluster):
        del cluster.answers[path]

    return change


def deny(verb, resource):
    def change(cluster):
        cluster.denied.add((verb, resource))

    return change


def stuck(cluster):
    cluster.pod_state = {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}}


PENDING = {"spec": {"storageClassName": "slow"}, "status": {"phase": "Pending"}}
OLD = {
    "spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "o", "image": "kuberay/operator:v1.4.0"}]}}}
}


@pytest.mark.parametrize(
    ("change", "name", "word"),
    [
        (lose("argoproj.io"), "Kubeflow Pipelines", "argoproj.io"),
        (forget("/api/v1/namespaces/kubeflow/services/ml-pipeline"), "Kubeflow Pipelines", "ml-pipeline"),
        (lose("ray.io"), "KubeRay", "ray.io"),
        (answer(OPERATORS, {"items": [OLD]}), "KubeRay", "1.4"),
        (answer(NODES, {"items": [{"status": {"allocatable": {"cpu": "8"}}}]}), "GPU operator", "0 allocatable"),
        (answer(CLAIM, {"spec": {}, "status": {"phase": "Pending"}}), "claim qwenops-artifacts", "Pending"),
        (answer(CLAIM, PENDING), "claim qwenops-artifacts", "class slow does not exist"),
        (forget(CLAIM), "claim qwenops-artifacts", "does not exist"),
        (deny("delete", "rayjobs"), "may create, get, list, watch, patch, delete rayjobs", "denied: delete"),
        (deny("get", "pods/log"), "may get pods/log", "denied: get"),
        (stuck, "image", "no such tag"),
    ],
)
def test_what_is_missing_is_named_with_a_command(capsys, change, name, word):
    cluster = Cluster()
    change(cluster)
    with looked_at(cluster) as findings:
        finding = starting(findings, name)
    assert finding.state == "missing"
    assert word in finding.detail
    assert report(list(findings.values())) == 5
    assert f"->  {finding.command}" in capsys.readouterr().out
    assert [f.name for f in findings.values() if f.state == "missing"] == [finding.name]


@pytest.mark.parametrize(
    ("mode", "state"), [("WaitForFirstConsumer", "ok"), ("Immediate", "missing"), ("denied", "unknown")]
)
def test_claim_that_waits_for_its_first_pod_lacks_nothing(mode, state):
    cluster = Cluster()
    cluster.answers |= {CLAIM: PENDING, SLOW: {"provisioner": "p", "volumeBindingMode": mode}}
    if mode == "denied":
        cluster.forbidden.add(SLOW)
    with looked_at(cluster) as findings:
        assert starting(findings, "claim qwenops-artifacts").state == state


def test_what_may_not_be_looked_at_is_unknown_and_no_failure():
    cluster = Cluster()
    cluster.denied.add(("create", "pods"))
    with looked_at(cluster) as findings:
        assert starting(findings, "image").state == "unknown"
    assert report(list(findings.values())) == 0


def test_image_that_is_still_being_pulled_is_unknown_and_its_pod_deleted():
    cluster = Cluster()
    cluster.pod_state = {"waiting": {"reason": "ContainerCreating"}}
    with looked_at(cluster, pull_seconds=0.1) as findings:
        assert starting(findings, "image").state == "unknown"
    assert len(cluster.deleted) == 1


def test_cluster_that_does_not_answer_is_one_clear_error():
    configuration = client.Configuration(host="http://127.0.0.1:9")
    configuration.retries = False
    with client.ApiClient(configuration) as api, pytest.raises(PlatformError, match="cannot be reached"):
        check_cluster(by_name("h200_node"), "team", api)
