"""The rayjob launcher against an API server: reuse, adoption, families, attempts, cancellation; nothing is left."""

import json
import os
import shutil
import signal
import threading
import time

import pytest
from tests.platform.conftest import (
    APP_FAILED,
    COMPLETE,
    INITIALIZING,
    RUNNING,
    Operator,
    admit,
    drive,
    kubeconfig,
    start_pod,
)

from qwenops.errors import ContractError, PlatformError
from qwenops.platform.context import RunContext
from qwenops.platform.kubernetes.ending import release_run
from qwenops.platform.kubernetes.log_follower import split
from qwenops.platform.kubernetes.ray_job import RayJobLauncher
from qwenops.platform.kubernetes.ray_manifest import ENDED
from qwenops.platform.launch.execute import execute
from qwenops.platform.launch.launchers import delete_jobs
from qwenops.platform.stage.task import read_task
from qwenops.platform.termination import Terminated
from qwenops.recipe.codec import canonical
from qwenops.recipe.placement import RayCluster

GOOD = [INITIALIZING, RUNNING, drive, COMPLETE]


def message(**config):
    return {
        "stage": "toy.counter",
        "slice": canonical({"node": "counter", "seed": 1, "config": config}),
        "inputs": {},
    }


def launch(kube, cluster=None, pod="", run="run-1", **config):
    context = RunContext.from_environment(os.environ | {"QWENOPS_RUN_ID": run, "QWENOPS_POD_NAME": pod})
    launcher, spec = RayJobLauncher(kube, cluster or RayCluster(deletion_seconds=5)), message(**config)
    return launcher.launch(read_task(spec, context), spec, context)


def leftovers(server):
    return [key for key in server.store.objects if key[0] in ("rayjobs", "workloads")]


def event(folder, run="run-1"):
    return json.loads((folder / "events" / run / "counter.json").read_text())


def test_stage_runs_on_the_cluster_and_the_object_is_gone_afterwards(counter, server, kube):
    with Operator(server, GOOD):
        published = launch(kube, value=4)
    assert (published.path / "value.txt").read_text() == "4"
    assert not published.reused
    assert leftovers(server) == []
    assert event(counter)["status"] == "succeeded"


def test_finished_stage_is_reused_by_either_launcher(counter, server, kube, monkeypatch):
    with Operator(server, GOOD):
        launch(kube, value=4)
    before = len(server.requests)
    monkeypatch.setenv("QWENOPS_CLUSTER", canonical(RayCluster()))
    again = execute("toy.counter", message(value=4)["slice"], {})
    assert again.reused
    assert len(server.requests) == before


def test_foreign_object_of_the_same_name_is_left_alone(counter, server, kube):
    with Operator(server, GOOD) as operator:
        launch(kube, value=4)
    (name,) = operator.seen
    shutil.rmtree(counter / "store")
    server.store.add("rayjobs", {"metadata": {"name": name, "labels": {}}, "spec": {}})
    server.store.objects["rayjobs", name]["metadata"].pop("labels")
    with Operator(server, [], GOOD):
        assert (launch(kube, value=4).path / "value.txt").read_text() == "4"
    assert [key for key in server.store.objects if key[0] == "rayjobs"] == [("rayjobs", name)]


def test_step_in_a_pod_launches_what_its_environment_says(counter, server, monkeypatch):
    config = counter / "kubeconfig"
    config.write_text(kubeconfig(server.url))
    monkeypatch.setenv("QWENOPS_KUBECONFIG", str(config))
    monkeypatch.setenv("QWENOPS_CLUSTER", canonical(RayCluster(deletion_seconds=5)))
    monkeypatch.setenv("QWENOPS_POD_NAMESPACE", "team")
    monkeypatch.setenv("QWENOPS_RUN_ID", "run-1")
    with Operator(server, GOOD) as operator:
        published = execute("toy.counter", message(value=4)["slice"], {})
    assert (published.path / "value.txt").read_text() == "4"
    assert len(operator.seen) == 1
    server.store.add("rayjobs", {"metadata": {"name": "left", "labels": {"qwenops.io/run": "run-1"}}, "spec": {}})
    assert delete_jobs(RunContext.from_environment()) == ("left",)
    assert leftovers(server) == []


def test_release_outside_a_cluster_does_nothing(counter):
    assert delete_jobs(RunContext.from_environment()) == ()


def test_both_launchers_publish_the_same_artifact(counter, server, kube, monkeypatch, tmp_path):
    with Operator(server, GOOD):
        there = launch(kube, value=4)
    monkeypatch.setenv("QWENOPS_STORE", str(tmp_path / "other"))
    here = execute("toy.counter", message(value=4)["slice"], {})
    assert (here.manifest.digest, here.manifest.fingerprint) == (there.manifest.digest, there.manifest.fingerprint)


def test_stage_with_its_own_error_keeps_the_family_and_is_not_tried_again(counter, server, kube):
    with (
        Operator(server, [INITIALIZING, RUNNING, drive, APP_FAILED], GOOD) as operator,
        pytest.raises(ContractError, match="bad rows"),
    ):
        launch(kube, fault="contract")
    assert len(operator.seen) == 1
    assert leftovers(server) == []


def lose_head(operator, name):
    """The driver makes two steps and its head pod dies with it, without a word to the events."""
    drive(operator, name)
    path = next(p for p in (operator.folder / "events").rglob("counter.json"))
    path.write_text(json.dumps({"node": "counter", "status": "running", "job": name}))


def test_lost_head_starts_a_new_attempt_that_continues_from_the_checkpoint(counter, server, kube):
    operator = Operator(server, [INITIALIZING, RUNNING, lose_head, APP_FAILED], GOOD)
    operator.folder = counter
    with operator:
        published = launch(kube, fault="lost", value=2)
    assert (published.path / "value.txt").read_text() == "2"
    assert [name.rpartition("-")[2] for name in operator.seen] == ["0", "1"]
    # Steps 0 and 1 were made by the first driver, 2 and 3 by the second.
    assert (counter / "events" / "run-1" / "steps.log").read_text().split() == ["0", "1", "2", "3"]
    assert leftovers(server) == []


def test_attempts_are_bounded(counter, server, kube):
    failing = [INITIALIZING, {"jobDeploymentStatus": "Failed", "reason": "SubmissionFailed"}]
    with Operator(server, failing, failing, failing) as operator, pytest.raises(PlatformError, match="submitted"):
        launch(kube, RayCluster(attempts=2, deletion_seconds=5))
    assert len(operator.seen) == 2
    assert leftovers(server) == []
    assert event(counter)["error"]["family"] == "PlatformError"


def test_restarted_step_adopts_the_running_job(counter, server, kube):
    """The first step's process is killed without a word; the second finds its job and starts no other."""
    released = threading.Event()
    script = [INITIALIZING, RUNNING, lambda *_: released.wait(300), drive, COMPLETE]
    with Operator(server, script) as operator:
        stray = threading.Thread(target=lambda: launch(kube, value=4), daemon=True)
        stray.start()
        while not operator.seen:
            time.sleep(0.01)
        threading.Timer(0.2, released.set).start()
        published = launch(kube, value=4)
        stray.join(300)
    assert (published.path / "value.txt").read_text() == "4"
    assert len(operator.seen) == 1
    assert leftovers(server) == []


def test_failed_job_of_an_earlier_step_is_removed_and_a_new_one_started(counter, server, kube):
    with Operator(server, GOOD) as operator:
        shutil.rmtree(launch(kube, value=4).path)
    manifest = next(body for method, _, _, body in server.requests if method == "POST")
    server.store.add("rayjobs", {"metadata": manifest["metadata"], "spec": manifest["spec"]})
    server.store.status(operator.seen[0], **APP_FAILED)
    with Operator(server) as second:
        second.seen, second.scripts = [operator.seen[0]], [GOOD]
        published = launch(kube, value=4)
    assert (published.path / "value.txt").read_text() == "4"
    assert [name.rpartition("-")[2] for name in second.seen] == ["0", "1"]
    assert leftovers(server) == []


def test_create_whose_answer_was_lost_is_adopted_and_not_doubled(counter, server, kube):
    server.lose_next_answer = True
    with Operator(server, GOOD) as operator:
        launch(kube, value=4)
    assert len(operator.seen) == 1


def step_pod(server, *conditions, owner=True):
    reference = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "w", "uid": "u", "controller": True}
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "step", "labels": {}} | ({"ownerReferences": [reference]} if owner else {}),
        "spec": {"containers": [{"name": "main", "image": "i"}]},
        "status": {"conditions": [{"type": kind, "status": "True"} for kind in conditions]},
    }
    server.store.add("pods", body)


def terminate(operator, _):
    os.kill(os.getpid(), signal.SIGTERM)


def test_cancelled_run_deletes_its_job(counter, server, kube):
    step_pod(server)
    with Operator(server, [INITIALIZING, RUNNING, terminate]), pytest.raises(Terminated) as end:
        launch(kube, pod="step")
    assert end.value.code == 143
    assert leftovers(server) == []


def test_first_write_of_a_cancelled_run_suspends_its_job(counter, server, kube):
    """Between the signal and that write: one question, whether this pod is only evicted."""
    step_pod(server)
    before = []

    def cancel(operator, name):
        before.append(len(server.requests))
        terminate(operator, name)

    with Operator(server, [INITIALIZING, cancel]) as operator, pytest.raises(Terminated):
        launch(kube, pod="step")
    then = [(method, path.rsplit("/", 1)[1]) for method, path, *_ in server.requests[before[0] :]]
    last = then.index(("PATCH", operator.seen[0]))
    assert [found for found in then[:last] if found[0] != "GET"] == []
    assert then[:last].count(("GET", "step")) == 1
    assert server.requests[before[0] + last][3]["spec"] == {"suspend": True}


def test_job_of_a_step_that_died_while_its_run_was_ended_is_not_adopted(counter, server, kube):
    """It was suspended and could not be deleted any more; its run may still be tried again."""
    step_pod(server, "DisruptionTarget")
    with Operator(server, [INITIALIZING, RUNNING, terminate], GOOD) as operator:
        with pytest.raises(Terminated):
            launch(kube, pod="step", value=4)
        kube.suspend_job(operator.seen[0], ENDED)
        published = launch(kube, value=4)
    assert (published.path / "value.txt").read_text() == "4"
    assert len(operator.seen) == 2
    assert leftovers(server) == []


def test_run_cancelled_before_the_creation_is_answered_deletes_its_job(counter, server, kube):
    server.on_create = lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(0.3))
    with Operator(server, []), pytest.raises(Terminated):
        launch(kube)
    assert leftovers(server) == []


def test_evicted_step_leaves_its_job_and_the_next_step_adopts_it(counter, server, kube):
    step_pod(server, "DisruptionTarget")
    with Operator(server, [INITIALIZING, RUNNING, terminate]) as operator:
        with pytest.raises(Terminated):
            launch(kube, pod="step", value=4)
        name = operator.seen[0]
        assert ("rayjobs", name) in server.store.objects
        server.store.remove("pods", "step")
        assert ("rayjobs", name) in server.store.objects
        step_pod(server)
        threading.Thread(target=lambda: (drive(operator, name), server.store.status(name, **COMPLETE))).start()
        published = launch(kube, pod="step", value=4)
    assert (published.path / "value.txt").read_text() == "4"
    assert operator.seen == [name]
    assert leftovers(server) == []


@pytest.mark.parametrize(("owned", "kind"), [(True, "Workflow"), (False, "Pod")])
def test_job_belongs_to_what_owns_the_step(counter, server, kube, owned, kind):
    step_pod(server, owner=owned)
    with Operator(server, GOOD):
        launch(kube, pod="step", run="")
    created = next(body for method, path, _, body in server.requests if method == "POST" and "rayjobs" in path)
    (reference,) = created["metadata"]["ownerReferences"]
    assert reference["kind"] == kind
    assert not reference.get("blockOwnerDeletion")


def test_deleted_run_takes_its_job_along(counter, server, kube):
    step_pod(server, owner=False)
    with (
        Operator(server, [INITIALIZING, lambda operator, _: server.store.remove("pods", "step")]),
        pytest.raises(PlatformError, match="deleted the RayJob"),
    ):
        launch(kube, pod="step")
    assert leftovers(server) == []


def test_exit_handler_releases_every_job_of_its_run_and_no_other(counter, server, kube):
    for run, names in (("run-1", ("a", "b")), ("run-2", ("c",))):
        for name in names:
            labels = {"qwenops.io/run": run, "kueue.x-k8s.io/queue-name": "q"}
            server.store.add("rayjobs", {"metadata": {"name": name, "labels": labels}, "spec": {}})
    assert set(release_run(kube, "run-1", wait_seconds=5)) == {"a", "b"}
    assert [method for method, *_ in server.requests if method != "GET"] == ["PATCH", "PATCH", "DELETE", "DELETE"]
    assert leftovers(server) == [("rayjobs", "c")]


def test_logs_reach_the_step_and_the_store(counter, server, kube, capsys):
    def talk(operator, name):
        pod = start_pod(operator, name)
        server.store.log(pod, "ray-job-submitter", "epoch 1", "epoch 2")
        worker = start_pod(operator, name, "ray-worker", f"{name}-worker")
        server.store.log(worker, "ray-worker", "from the worker")
        time.sleep(1.5)
        server.store.log(pod, "ray-job-submitter", "epoch 3")
        server.store.end_log(pod, "ray-job-submitter")

    server.cut_logs_after = 1
    with Operator(server, [INITIALIZING, RUNNING, talk, drive, COMPLETE]) as operator:
        launch(kube, value=1)
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if "driver]" in line] == [
        f"[counter driver] epoch {i}" for i in (1, 2, 3)
    ]
    folder = counter / "store" / "logs" / "run-1" / operator.seen[0]
    (driver,) = folder.glob("*.ray-job-submitter.log")
    assert [split(line)[1] for line in driver.read_text().splitlines()] == ["epoch 1", "epoch 2", "epoch 3"]
    assert "from the worker" in next(folder.glob("*.ray-worker.log")).read_text()


def test_error_shows_events_and_the_end_of_the_log(counter, server, kube):
    def suffer(operator, name):
        pod = start_pod(operator, name)
        server.store.log(pod, "ray-job-submitter", "cannot import name qwenops")
        server.store.end_log(pod, "ray-job-submitter")
        involved = {"kind": "Pod", "name": f"{name}-abcde-head"}
        meta = {"name": "e1", "labels": {}}
        facts = {"type": "Warning", "reason": "FailedMount", "message": "claim not found", "involvedObject": involved}
        server.store.add("events", {"metadata": meta} | facts)
        time.sleep(1.3)

    failed = {"jobDeploymentStatus": "Failed", "reason": "SubmissionFailed", "message": "backoff limit"}
    with Operator(server, [INITIALIZING, suffer, failed]), pytest.raises(PlatformError) as error:
        launch(kube, RayCluster(attempts=1, deletion_seconds=5))
    for part in ("SubmissionFailed", "FailedMount", "claim not found", "cannot import name qwenops", "backoff limit"):
        assert part in str(error.value)


@pytest.mark.parametrize("end", ["Complete", "Failed", "ValidationFailed"])
def test_quota_is_free_after_every_end(counter, server, kube, end):
    held = []

    def look(operator, name):
        held.append(server.store.quota_holders())

    script = [admit, INITIALIZING, RUNNING, look, drive]
    with Operator(server, [*script, COMPLETE | {"jobDeploymentStatus": end}]):
        try:
            launch(kube, RayCluster(queue="team-queue", attempts=1, deletion_seconds=5))
        except PlatformError:
            assert end != "Complete"
    assert len(held[0]) == 1
    assert server.store.quota_holders() == []
    assert leftovers(server) == []


def test_job_that_does_not_go_away_forbids_a_second_driver(counter, server, kube):
    def hold(operator, name):
        job = server.store.objects["rayjobs", name]
        job["metadata"]["finalizers"] = ["ray.io/rayjob-finalizer"]
        server.store.put("rayjobs", job)

    script = [INITIALIZING, hold, {"jobDeploymentStatus": "Failed", "reason": "SubmissionFailed"}]
    with Operator(server, script, GOOD) as operator, pytest.raises(PlatformError, match="does not go away"):
        launch(kube, RayCluster(deletion_seconds=1))
    assert len(operator.seen) == 1


def test_job_preempted_by_the_queue_waits_and_goes_on(counter, server, kube):
    held = []

    def preempt(operator, name):
        job = server.store.objects["rayjobs", name]
        job["spec"]["suspend"] = True
        server.store.put("rayjobs", job)
        held.append(len(server.store.quota_holders()))

    gone = [{"jobDeploymentStatus": "Suspending"}, {"jobDeploymentStatus": "Suspended", "jobStatus": ""}]
    again = [admit, {"jobDeploymentStatus": ""}, *GOOD]
    with Operator(server, [admit, INITIALIZING, RUNNING, preempt, *gone, *again]) as operator:
        published = launch(kube, RayCluster(queue="team-queue", deletion_seconds=5), value=4)
    assert (published.path / "value.txt").read_text() == "4"
    assert held == [0]
    assert len(operator.seen) == 1
    assert leftovers(server) == []


def test_refused_right_to_read_pods_costs_the_log_and_not_the_job(counter, server, kube, capsys):
    server.fail("GET", "/pods", 403, times=99, message="pods is forbidden")
    with Operator(server, GOOD):
        launch(kube, value=4)
    assert "not allowed to list pods" in capsys.readouterr().out
