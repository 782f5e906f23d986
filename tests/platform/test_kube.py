"""Calls outlive throttling, faults, dropped streams, compaction and a restart of the API server; refusals explain."""

import threading
import time

import pytest
from kubernetes import client
from kubernetes.client.rest import ApiException
from tests.platform.conftest import COMPLETE, INITIALIZING, RUNNING, kubeconfig
from tests.platform.kube_server import KubeServer

from qwenops.errors import PlatformError
from qwenops.platform.kubernetes.client import Kube, connect
from qwenops.platform.kubernetes.errors import explain


def job(name="one"):
    head = {"spec": {"containers": [{"name": "ray-head", "image": "i"}]}}
    spec = {"rayClusterSpec": {"headGroupSpec": {"template": head}}}
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": name, "labels": {}}, "spec": spec}


def phases(kube, until="Complete"):
    seen = []
    for state in kube.follow_job("one"):
        phase = (state or {}).get("status", {}).get("jobDeploymentStatus") if state else "gone"
        if not seen or seen[-1] != phase:
            seen.append(phase)
        if phase in (until, "gone"):
            return seen
    return seen


def after(seconds, function, *arguments, **options):
    timer = threading.Timer(seconds, function, arguments, options)
    timer.start()
    return timer


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_call_is_repeated_while_the_server_is_unwell(server, kube, method, status):
    server.fail(method, "rayjobs", status, times=2)
    assert kube.create_job(job())
    assert kube.job("one")["metadata"]["name"] == "one"
    assert kube.delete_job("one", wait_seconds=5)
    assert kube.job("one") is None


def test_taken_name_is_said_and_not_raised(kube):
    assert kube.create_job(job())
    assert not kube.create_job(job())


def test_following_sees_states_in_order(server, kube):
    kube.create_job(job())
    for delay, status in ((0.1, INITIALIZING), (0.2, RUNNING), (0.3, COMPLETE)):
        after(delay, server.store.status, "one", **status)
    assert phases(kube) == [None, "Initializing", "Running", "Complete"]


def test_following_survives_a_dropped_stream(server, kube):
    kube.create_job(job())
    after(0.2, server.drop_connections)
    after(0.4, server.store.status, "one", **RUNNING)
    after(0.6, server.drop_connections)
    after(0.8, server.store.status, "one", **COMPLETE)
    assert phases(kube)[-1] == "Complete"


def test_following_survives_compaction(server, kube):
    """The version it would go on from is gone: 410, first on the stream, then as the answer."""
    kube.create_job(job())
    server.fail("GET", "watch=True", 410)

    def age():
        server.store.status("one", **RUNNING)
        server.compact()
        server.drop_connections()

    after(0.2, age)
    after(0.6, server.store.status, "one", **COMPLETE)
    assert phases(kube)[-1] == "Complete"


def test_following_outlasts_the_budget_when_the_last_change_is_older_than_history(server):
    """A server that no longer watches from the object's own version would answer 410 until the next change."""
    settings = client.Configuration()
    settings.host = server.url
    impatient = Kube(client.ApiClient(settings), "team", outage_seconds=0.3)
    impatient.create_job(job())
    server.compact()
    after(1.5, server.store.status, "one", **COMPLETE)
    assert phases(impatient) == [None, "Complete"]


def test_following_survives_a_server_restart_in_the_middle_of_a_watch(server, kube):
    kube.create_job(job())
    after(0.2, server.restart, 1.0)
    # While the server is away the operator's update waits in its queue; it lands after the restart.
    after(1.5, server.store.status, "one", **COMPLETE)
    began = time.monotonic()
    assert phases(kube)[-1] == "Complete"
    assert time.monotonic() - began > 1.2


def test_following_ends_when_the_object_is_deleted(server, kube):
    kube.create_job(job())
    after(0.3, server.store.remove, "rayjobs", "one")
    assert phases(kube)[-1] == "gone"


def test_server_that_stays_away_is_a_platform_error(server):
    settings = client.Configuration()
    settings.host = server.url
    impatient = Kube(client.ApiClient(settings), "team", outage_seconds=0.5)
    server.close()
    with pytest.raises(PlatformError, match=r"did not answer[\s\S]*adopts"):
        impatient.job("one")


@pytest.mark.parametrize(
    ("status", "message", "words"),
    [
        (401, "Unauthorized", "not allowed to create rayjobs"),
        (403, 'rayjobs.ray.io is forbidden: User "x" cannot create', "not allowed to create rayjobs"),
        (403, "exceeded quota: team", "a quota of namespace team"),
        (404, "the server could not find the requested resource", "KubeRay"),
        (422, "spec.entrypoint: Invalid value", "spec.entrypoint"),
    ],
)
def test_refusal_names_the_permission_the_quota_or_the_field(server, kube, status, message, words):
    server.fail("POST", "rayjobs", status, times=1, message=message)
    with pytest.raises(PlatformError, match=words):
        kube.create_job(job())


@pytest.mark.parametrize(
    "body", ['{"details": "no upstream"}', '{"details": {"causes": "none"}}', '["busy"]', "<html>"]
)
def test_answer_of_something_else_than_an_api_server_is_shown(body):
    refusal = ApiException(status=418, reason="Proxy")
    refusal.body = body
    assert "refused to create rayjobs" in str(explain(refusal, "create rayjobs", "team"))


def test_forbidden_watch_is_refused_and_not_repeated_for_ever(server, kube):
    kube.create_job(job())
    server.fail("GET", "watch=True", 403, times=99)
    with pytest.raises(PlatformError, match="not allowed to watch rayjobs"):
        phases(kube)


def test_object_with_a_finalizer_lingers_and_is_reported(server, kube):
    kube.create_job(job())
    held = server.store.objects["rayjobs", "one"]
    held["metadata"]["finalizers"] = ["ray.io/rayjob-finalizer"]
    server.store.put("rayjobs", held)
    assert not kube.delete_job("one", wait_seconds=0.3)
    after(0.2, server.store.remove, "rayjobs", "one")
    assert kube.delete_job("one", wait_seconds=5)


def test_newest_warnings_are_kept(server, kube):
    for number in range(12):
        facts = {"type": "Normal", "reason": "Scheduled", "message": str(number)}
        facts |= {"lastTimestamp": f"2026-01-01T00:00:{number:02d}Z", "involvedObject": {"name": "one-head"}}
        server.store.add("events", {"metadata": {"name": f"e{number}", "labels": {}}} | facts)
    facts = {"type": "Warning", "reason": "FailedMount", "message": "claim", "involvedObject": {"name": "one-head"}}
    server.store.add("events", {"metadata": {"name": "w", "labels": {}}} | facts)
    other = {"type": "Warning", "reason": "Other", "message": "", "involvedObject": {"name": "two"}}
    server.store.add("events", {"metadata": {"name": "o", "labels": {}}} | other)
    found = kube.events(("one",), most=4)
    assert [line.split(": ")[1] for line in found] == ["9", "10", "11", "claim"]


def test_process_outside_a_cluster_is_told_what_it_lacks():
    with pytest.raises(PlatformError, match="service account"):
        connect("", "")
    with pytest.raises(PlatformError, match="kubeconfig"):
        connect("/nowhere/config", "")


def test_kubeconfig_gives_address_token_and_namespace(tmp_path):
    server = KubeServer()
    path = tmp_path / "config"
    path.write_text(kubeconfig(server.url))
    kube = connect(str(path), "")
    assert kube.namespace == "team"
    assert kube.create_job(job())
    server.close()
