"""The launcher on a real API server: through every phase and reason, adoption, deletion; with KubeRay where it runs.

In the scripted tests a double plays KubeRay's part, also where KubeRay runs. In those with real pods KubeRay acts where
it runs, `PodOperator` else.
"""

import contextlib
import json
import threading
import time

import pytest
from kubernetes import client
from tests.integration.cluster.operator_double import OperatorDouble, UnmindedKube

from qwenops.errors import PlatformError, QwenOpsError
from qwenops.platform.context import RunContext
from qwenops.platform.kubernetes.ending import release_run
from qwenops.platform.kubernetes.logs import SUBMITTER
from qwenops.platform.kubernetes.ray_job import RayJobLauncher
from qwenops.platform.launch import driver
from qwenops.platform.stage.task import read_task
from qwenops.recipe.codec import canonical
from qwenops.recipe.schema import resolve
from qwenops_pipelines.recipes import load_recipe

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

INITIALIZING = {"jobDeploymentStatus": "Initializing", "jobId": "j", "rayClusterName": "c"}
RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
COMPLETE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}


def context_in(folder, run):
    return RunContext(
        store=str(folder / "store"), events=str(folder / "events" / run), cache=str(folder / "cache"), run_id=run
    )


def message(stage="toy.counter", **config):
    return {"stage": stage, "slice": canonical({"node": "counter", "seed": 1, "config": config}), "inputs": {}}


def launch(launcher, spec, context):
    return launcher.launch(read_task(spec, context), spec, context)


def jobs(cluster, namespace):
    return cluster.kube(namespace).jobs("")


def unminded(cluster, namespace):
    return UnmindedKube(cluster.api(), namespace, outage_seconds=60, watch_seconds=2)


@pytest.fixture
def kube(cluster, namespace):
    """The launcher's client for jobs that the double minds."""
    return unminded(cluster, namespace)


@pytest.fixture
def scripted(cluster, namespace):
    """Starts a double with scripts."""

    def start(*scripts):
        return OperatorDouble(cluster.api(), namespace, *scripts)

    return start


def driver_of(cluster, namespace):
    """A script step that runs the job's entrypoint to its end."""

    def drive(name):
        job = cluster.kube(namespace).job(name)
        with contextlib.suppress(QwenOpsError):
            driver.run(job["spec"]["entrypoint"].split()[3])

    return drive


def test_every_phase_to_success(cluster, namespace, kube, counter, scripted, ray_cluster):
    drive = driver_of(cluster, namespace)
    phases = [{"jobDeploymentStatus": phase} for phase in ("Suspending", "Suspended", "", "Waiting", "Retrying", "")]
    with scripted([INITIALIZING, *phases, INITIALIZING, RUNNING, drive, COMPLETE]):
        published = launch(RayJobLauncher(kube, ray_cluster), message(value=4), context_in(counter, "run-1"))
    assert (published.path / "value.txt").read_text() == "4"
    assert kube.jobs("") == []


@pytest.mark.parametrize(
    "end",
    [
        {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"},
        {"jobDeploymentStatus": "Failed", "reason": "SubmissionFailed"},
        {"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"},
        {"jobDeploymentStatus": "Failed", "reason": "PreRunningDeadlineExceeded"},
        {"jobDeploymentStatus": "Failed", "reason": "JobDeploymentStatusTransitionGracePeriodExceeded"},
        {"jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed", "message": "bad spec"},
        {"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"},
    ],
    ids=lambda end: end.get("reason") or end["jobStatus"],
)
def test_every_terminal_reason_is_told(cluster, namespace, kube, counter, scripted, ray_cluster, end):
    def complain(name):
        core = client.CoreV1Api(cluster.api())
        involved = {"kind": "RayJob", "apiVersion": "ray.io/v1", "name": name, "namespace": namespace}
        facts = {"type": "Warning", "reason": "Complaint", "message": "what went wrong", "involvedObject": involved}
        core.create_namespaced_event(namespace, {"metadata": {"name": f"{name}.{time.time_ns():x}"}} | facts)

    with scripted([INITIALIZING, complain, end]), pytest.raises(PlatformError) as error:
        launch(RayJobLauncher(kube, ray_cluster), message(), context_in(counter, "run-1"))
    assert (end.get("reason") or "Stopped") in str(error.value)
    assert "what went wrong" in str(error.value)
    assert kube.jobs("") == []


def test_restarted_step_adopts_its_job(cluster, namespace, kube, counter, scripted, ray_cluster):
    go = threading.Event()
    script = [INITIALIZING, RUNNING, lambda _: go.wait(60), driver_of(cluster, namespace), COMPLETE]
    context = context_in(counter, "run-1")
    with scripted(script) as double:
        first = RayJobLauncher(unminded(cluster, namespace), ray_cluster)
        threading.Thread(target=launch, args=(first, message(value=4), context), daemon=True).start()
        while not double.seen:
            time.sleep(0.05)
        threading.Timer(1, go.set).start()
        published = launch(RayJobLauncher(kube, ray_cluster), message(value=4), context)
    assert (published.path / "value.txt").read_text() == "4"
    assert len(double.seen) == 1
    assert kube.jobs("") == []


def test_api_server_restart_in_the_middle_of_a_watch(cluster, namespace, kube, counter, scripted, ray_cluster):
    if cluster.plane is None:
        pytest.skip("the API server of a cluster from outside is not ours to restart")
    plane = cluster.plane

    def restart(_):
        plane.stop_server()
        time.sleep(2)
        plane.start_server()

    with scripted([INITIALIZING, RUNNING, restart, driver_of(cluster, namespace), COMPLETE]) as double:
        published = launch(RayJobLauncher(kube, ray_cluster), message(value=4), context_in(counter, "run-1"))
    assert (published.path / "value.txt").read_text() == "4"
    assert len(double.seen) == 1
    assert kube.jobs("") == []


def test_watch_from_forgotten_history_goes_on(cluster, namespace, kube, scripted, ray_cluster):
    """Version 1 is older than what a server keeps in memory: it answers 410, and following reads anew."""
    body = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "old"}, "spec": {"suspend": True}}
    kube.create_job(body)
    real, versions = kube._watch_job, iter(["1"])
    kube._watch_job = lambda name, version: real(name, next(versions, version))
    seen = []
    with scripted([INITIALIZING, COMPLETE]):
        for job in kube.follow_job("old"):
            seen.append((job or {}).get("status", {}).get("jobDeploymentStatus"))
            if seen[-1] == "Complete":
                break
        kube.delete_job("old", wait_seconds=20)
    assert seen[-1] == "Complete"


def test_exit_handler_leaves_nothing_of_a_run(cluster, namespace, kube, ray_cluster, scripted):
    for name, run in (("a", "run-1"), ("b", "run-1"), ("c", "run-2")):
        meta = {"name": name, "labels": {"qwenops.io/run": run}}
        body = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": meta, "spec": {"suspend": True}}
        kube.create_job(body)
    with scripted([], [], []):
        assert set(release_run(kube, "run-1", wait_seconds=20)) == {"a", "b"}
    assert [job["metadata"]["name"] for job in kube.jobs("")] == ["c"]


def collect_task(stage="data.collect"):
    slices = resolve(load_recipe("smoke", []))
    return {"stage": stage, "slice": canonical(slices["collect"]), "inputs": {}}


def pods(cluster, namespace):
    found = client.CoreV1Api(cluster.api()).list_namespaced_pod(namespace).items
    return [pod for pod in found if not pod.metadata.deletion_timestamp]


def running(cluster, namespace, container):
    """Names of running pods by their container, whatever an operator calls the pods."""
    return [
        pod.metadata.name
        for pod in pods(cluster, namespace)
        if pod.status.phase == "Running" and container in [found.name for found in pod.spec.containers]
    ]


def wait_for(found, seconds=300):
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.2)
    return value


def test_pods_run_a_stage_and_its_log_arrives(cluster, namespace, real, ray_cluster, capsys):
    published = launch(RayJobLauncher(cluster.kube(namespace), ray_cluster), collect_task(), context_in(real, "run-1"))
    assert published.manifest.records > 0
    assert "[collect driver]" in capsys.readouterr().out
    assert list((real / "store" / "logs").rglob("*.ray-job-submitter.log"))
    assert jobs(cluster, namespace) == []
    assert pods(cluster, namespace) == []


def test_lost_head_pod_starts_the_job_again(cluster, namespace, real, ray_cluster):
    lost = []

    def lose_head():
        wait_for(lambda: running(cluster, namespace, SUBMITTER))
        (head,) = running(cluster, namespace, "ray-head")
        client.CoreV1Api(cluster.api()).delete_namespaced_pod(head, namespace, grace_period_seconds=0)
        lost.append(head)

    thread = threading.Thread(target=lose_head, daemon=True)
    thread.start()
    again = ray_cluster.model_copy(update={"attempts": 2})
    published = launch(RayJobLauncher(cluster.kube(namespace), again), collect_task(), context_in(real, "run-1"))
    assert lost
    assert published.manifest.records > 0
    assert jobs(cluster, namespace) == []


@pytest.mark.parametrize(
    ("change", "stage", "words"),
    [
        ({}, "data.nowhere", "No module named .qwenops.data.nowhere"),
        ({"active_deadline_seconds": 15, "pre_running_deadline_seconds": 15}, "data.collect", "longer|within"),
        ({"pre_running_deadline_seconds": 10}, "unschedulable", "pre_running_deadline_seconds"),
    ],
    ids=["AppFailed", "DeadlineExceeded", "PreRunningDeadlineExceeded"],
)
def test_pods_end_badly_and_leave_nothing(cluster, namespace, real, ray_cluster, change, stage, words):
    wanted = ray_cluster.model_copy(update=change)
    if stage == "unschedulable":
        head = wanted.head.model_copy(update={"node_selector": {"qwenops.io/test": "no-such-node"}})
        wanted, stage = wanted.model_copy(update={"head": head}), "data.collect"
    with pytest.raises(QwenOpsError, match=words):
        launch(RayJobLauncher(cluster.kube(namespace), wanted), collect_task(stage), context_in(real, "run-1"))
    assert jobs(cluster, namespace) == []
    assert json.loads((real / "events" / "run-1" / "collect.json").read_text())["status"] == "failed"
