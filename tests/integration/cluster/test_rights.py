"""What a step's account may do, and what it may not, shown by calls with its token; two teams do not see each other."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from kubernetes import client
from kubernetes.client.rest import ApiException

from qwenops.errors import PlatformError
from qwenops.platform.kube import Kube

pytestmark = pytest.mark.integration

CHART = Path(__file__).parents[3] / "helm" / "qwenops"
# What the launcher asks of the API server, and nothing more.
NEEDED = (
    {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get", "list", "watch", "delete"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["list"]},
)


def grant(cluster, namespace, rules):
    """A service account with `rules` in its namespace; returns its name."""
    core, rbac = client.CoreV1Api(cluster.api()), client.RbacAuthorizationV1Api(cluster.api())
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "step"}})
    rbac.create_namespaced_role(namespace, {"metadata": {"name": "step"}, "rules": list(rules)})
    subject = {"kind": "ServiceAccount", "name": "step", "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "step"}
    rbac.create_namespaced_role_binding(
        namespace, {"metadata": {"name": "step"}, "subjects": [subject], "roleRef": reference}
    )
    return "step"


def kube_as(cluster, namespace, account, where=""):
    """The launcher's client with the account's token."""
    asked = {"spec": {"expirationSeconds": 600, "audiences": []}}
    core = client.CoreV1Api(cluster.api())
    token = core.create_namespaced_service_account_token(account, namespace, asked).status.token
    return Kube(cluster.api_as(token), where or namespace, outage_seconds=20, watch_seconds=1)


def job():
    spec = {
        "entrypoint": "true",
        "suspend": True,
        "shutdownAfterJobFinishes": True,
        "rayClusterSpec": {"headGroupSpec": {"template": {"spec": {}}}},
    }
    spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"] = {"containers": [{"name": "ray-head", "image": "i"}]}
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "rights"}, "spec": spec}


def use_every_right(kube):
    assert kube.create_job(job())
    assert kube.job("rights")
    assert kube.jobs("") != []
    states = kube.follow_job("rights")
    assert [next(states)["metadata"]["name"] for _ in range(2)] == ["rights", "rights"]
    assert kube.pods("") == []
    assert kube.pod("nobody") is None
    assert isinstance(kube.events(("rights",)), list)
    kube.delete_job("rights", wait_seconds=0)


def test_needed_rights_are_enough(cluster, namespace):
    use_every_right(kube_as(cluster, namespace, grant(cluster, namespace, NEEDED)))


def test_account_may_not_read_secrets_nor_start_pods(cluster, namespace):
    kube = kube_as(cluster, namespace, grant(cluster, namespace, NEEDED))
    for call in (
        lambda: kube.core.list_namespaced_secret(namespace),
        lambda: kube.core.create_namespaced_pod(namespace, {"metadata": {"name": "x"}, "spec": {"containers": []}}),
        lambda: kube.core.delete_namespaced_pod("x", namespace),
        lambda: client.RbacAuthorizationV1Api(kube.core.api_client).list_namespaced_role(namespace),
    ):
        with pytest.raises(ApiException) as refusal:
            call()
        assert refusal.value.status == 403


@pytest.mark.parametrize(
    ("missing", "call", "words"),
    [
        ("rayjobs", lambda kube: kube.create_job(job()), "create rayjobs"),
        ("pods", lambda kube: kube.pods(""), "list pods"),
        ("events", lambda kube: kube.events(("x",)), "list events"),
    ],
)
def test_missing_right_is_named(cluster, namespace, missing, call, words):
    rules = [rule for rule in NEEDED if missing not in rule["resources"]]
    kube = kube_as(cluster, namespace, grant(cluster, namespace, rules))
    with pytest.raises(PlatformError, match=f"not allowed to {words} in namespace {namespace}"):
        call(kube)


def test_one_team_cannot_touch_the_other(cluster, namespace, other_namespace):
    account = grant(cluster, namespace, NEEDED)
    abroad = kube_as(cluster, namespace, account, where=other_namespace)
    for call in (
        lambda: abroad.create_job(job()),
        lambda: abroad.jobs(""),
        lambda: abroad.pods(""),
        lambda: abroad.delete_job("rights", wait_seconds=0),
    ):
        with pytest.raises(PlatformError, match="not allowed"):
            call()
    with pytest.raises(ApiException) as refusal:
        abroad.core.list_namespaced_secret(other_namespace)
    assert refusal.value.status == 403


def test_rights_of_the_chart_are_enough(cluster, namespace):
    if not CHART.is_dir() or not shutil.which("helm"):
        pytest.skip("the chart or helm is missing here")
    command = ["helm", "template", "qwenops", str(CHART), "-n", namespace, "-f", str(CHART / "ci/kind-values.yaml")]
    rendered = subprocess.run(command, capture_output=True, text=True, check=False)
    assert rendered.returncode == 0, rendered.stderr
    documents = [d for d in yaml.safe_load_all(rendered.stdout) if d]
    core, rbac = client.CoreV1Api(cluster.api()), client.RbacAuthorizationV1Api(cluster.api())
    makers = {
        "ServiceAccount": core.create_namespaced_service_account,
        "Role": rbac.create_namespaced_role,
        "RoleBinding": rbac.create_namespaced_role_binding,
    }
    for kind, make in makers.items():
        for body in (d for d in documents if d["kind"] == kind and d["metadata"].get("namespace") in (None, namespace)):
            make(namespace, body)
    launching = {
        d["metadata"]["name"]
        for d in documents
        if d["kind"] == "Role" and any("ray.io" in r["apiGroups"] and "create" in r["verbs"] for r in d["rules"])
    }
    (binding,) = [d for d in documents if d["kind"] == "RoleBinding" and d["roleRef"]["name"] in launching]
    use_every_right(kube_as(cluster, namespace, binding["subjects"][0]["name"]))
