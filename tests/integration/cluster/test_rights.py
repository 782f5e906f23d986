"""What the chart's accounts may do and may not, shown by calls with their tokens; two teams do not see each other.

The accounts, roles and bindings are those that helm renders. The table of `tests/helm/rights.py` is asked of the API
server verb by verb, every call as a dry run.
"""

import json

import pytest
from kubernetes import client
from kubernetes.client.rest import ApiException
from tests.helm.rights import ACCOUNTS, ALLOWED, is_allowed, questions
from tests.integration.cluster.rights import account_name, install_accounts, token

from qwenops.errors import PlatformError
from qwenops.platform.kubernetes.client import Kube

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

_METHODS = {"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE", "deletecollection": "DELETE"}
_FORBIDDEN = 403


def kube_as(cluster, namespace, account, where=""):
    """The launcher's client with the account's token."""
    shown = cluster.api_as(token(cluster.api(), namespace, account_name(account)))
    return Kube(shown, where or namespace, outage_seconds=20, watch_seconds=1)


def answer(api, namespace, asked):
    """Status of one call. What is refused is refused before anything else of the call is looked at."""
    resource, _, sub = asked.resource.partition("/")
    path = f"/apis/{asked.group}/{asked.version}" if asked.group else f"/api/{asked.version}"
    path += "".join(f"/{part}" for part in ("namespaces", namespace, resource, asked.name, sub) if part)
    query = [] if asked.verb in ("get", "list", "watch") else [("dryRun", "All")]
    query += [("watch", "1"), ("timeoutSeconds", "1")] if asked.verb == "watch" else []
    method = _METHODS.get(asked.verb, "GET")
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    options = {"query_params": query, "header_params": {"Accept": "application/json", "Content-Type": kind}}
    options |= {"body": {} if method != "GET" else None, "auth_settings": ["BearerToken"], "_preload_content": False}
    try:
        response, status, _ = api.call_api(path, method, response_type="object", _request_timeout=20, **options)
    except ApiException as error:
        return error.status
    response.close()
    return status


def job():
    containers = [{"name": "ray-head", "image": "i"}]
    spec = {
        "entrypoint": "true",
        "suspend": True,
        "shutdownAfterJobFinishes": True,
        "rayClusterSpec": {"headGroupSpec": {"rayStartParams": {}, "template": {"spec": {"containers": containers}}}},
    }
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "rights"}, "spec": spec}


def test_launcher_does_its_work_with_the_rights_of_the_chart(cluster, namespace, chart):
    install_accounts(cluster.api(), chart, namespace)
    kube = kube_as(cluster, namespace, "pipeline")
    assert kube.create_job(job())
    assert kube.job("rights")
    assert [found["metadata"]["name"] for found in kube.jobs("")] == ["rights"]
    states = kube.follow_job("rights")
    assert [next(states)["metadata"]["name"] for _ in range(2)] == ["rights", "rights"]
    assert kube.pods("") == []
    assert kube.pod("nobody") is None
    assert isinstance(kube.events(("rights",)), list)
    with pytest.raises(ApiException) as missing:
        kube.core.read_namespaced_pod_log("nobody", namespace)
    assert missing.value.status == 404
    kube.delete_job("rights", wait_seconds=0)


@pytest.mark.parametrize("account", ACCOUNTS)
def test_account_may_do_what_the_table_says_and_everything_else_is_refused(cluster, namespace, chart, account):
    install_accounts(cluster.api(), chart, namespace)
    api = cluster.api_as(token(cluster.api(), namespace, account_name(account)))
    wrong = [
        (asked, status)
        for asked in questions()
        if ((status := answer(api, namespace, asked)) != _FORBIDDEN) is not is_allowed(account, asked)
    ]
    assert wrong == []


def test_verbs_that_only_kubeflow_knows_are_granted_to_the_trigger(cluster, namespace, chart):
    """Kubeflow's own resources are served by its back end, which asks the API server for a review of each call."""
    install_accounts(cluster.api(), chart, namespace)
    reviews = client.AuthorizationV1Api(cluster.api())

    def may(account, resource, verb):
        kind, _, sub = resource.partition("/")
        attributes = {"namespace": namespace, "group": "pipelines.kubeflow.org", "resource": kind, "verb": verb}
        attributes |= {"subresource": sub} if sub else {}
        user = f"system:serviceaccount:{namespace}:{account_name(account)}"
        body = {"spec": {"user": user, "resourceAttributes": attributes}}
        return reviews.create_subject_access_review(body).status.allowed

    verbs = ("create", "get", "list", "update", "delete", "enable", "disable", "archive", "terminate", "retry")
    resources = ("pipelines", "pipelines/versions", "experiments", "runs", "jobs")
    for account in ACCOUNTS:
        for resource in resources:
            granted = ALLOWED.get((account, "pipelines.kubeflow.org", resource, ""), set())
            assert {verb for verb in verbs if may(account, resource, verb)} == granted, (account, resource)


@pytest.mark.parametrize(
    ("missing", "call", "words"),
    [
        ("rayjobs", lambda kube: kube.create_job(job()), "create rayjobs"),
        ("pods", lambda kube: kube.pods(""), "list pods"),
        ("events", lambda kube: kube.events(("x",)), "list events"),
    ],
)
def test_missing_right_is_named(cluster, namespace, chart, missing, call, words):
    install_accounts(cluster.api(), chart, namespace, without=missing)
    with pytest.raises(PlatformError, match=f"not allowed to {words} in namespace {namespace}"):
        call(kube_as(cluster, namespace, "pipeline"))


@pytest.fixture
def two_teams(cluster, namespace, other_namespace, chart):
    """The chart's accounts in two namespaces, and in the second what the first must not see."""
    for name in (namespace, other_namespace):
        install_accounts(cluster.api(), chart, name)
    core = client.CoreV1Api(cluster.api())
    for secret in ("some", "mlpipeline-minio-artifact"):
        body = {"metadata": {"name": secret}, "stringData": {"key": "of the other team"}}
        core.create_namespaced_secret(other_namespace, body)
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Mi"}},
        "storageClassName": "none",
    }
    core.create_namespaced_persistent_volume_claim(other_namespace, {"metadata": {"name": "some"}, "spec": claim})
    cluster.kube(other_namespace).create_job(job() | {"metadata": {"name": "some"}})
    return namespace, other_namespace


@pytest.mark.parametrize("account", ACCOUNTS)
def test_one_team_reads_and_changes_nothing_of_the_other(cluster, two_teams, account):
    """Secrets, artifacts (claims) and runs (RayJobs, Workflows, pods and their logs), whatever the verb."""
    here, there = two_teams
    api = cluster.api_as(token(cluster.api(), here, account_name(account)))
    assert [asked for asked in questions() if answer(api, there, asked) != _FORBIDDEN] == []


def test_launcher_says_that_another_namespace_is_not_its_own(cluster, two_teams):
    here, there = two_teams
    abroad = kube_as(cluster, here, "pipeline", where=there)
    for call in (
        lambda: abroad.create_job(job()),
        lambda: abroad.jobs(""),
        lambda: abroad.pods(""),
        lambda: abroad.delete_job("some", wait_seconds=0),
    ):
        with pytest.raises(PlatformError, match=f"not allowed to .* in namespace {there}"):
            call()
    assert cluster.kube(there).job("some")


def test_no_account_sees_what_belongs_to_the_whole_cluster(cluster, namespace, chart):
    install_accounts(cluster.api(), chart, namespace)
    for account in ACCOUNTS:
        core = client.CoreV1Api(cluster.api_as(token(cluster.api(), namespace, account_name(account))))
        calls = (core.list_namespace, core.list_node, core.list_secret_for_all_namespaces, core.list_persistent_volume)
        for call in calls:
            with pytest.raises(ApiException) as refusal:
                call()
            assert refusal.value.status == _FORBIDDEN
            assert json.loads(refusal.value.body)["reason"] == "Forbidden"
