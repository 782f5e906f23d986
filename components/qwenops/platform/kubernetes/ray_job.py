"""The `rayjob` launcher: a Kubeflow step that owns a RayJob from creation to deletion.

Who owns the object. A RayJob owned by the step's pod would die with an evicted pod, and adoption would find
nothing. So its owner is what owns the pod: the run's Workflow, which outlives restarts of its steps and takes the
RayJob with it when the run is deleted. A pod without an owner owns its RayJob itself.

Who deletes it. This process, on every way out: success, failure, a cancelled run (SIGTERM). It leaves the job
alone in one case, an eviction of its own pod (`ending.is_evicted`); then the next attempt of the step
computes the same name and adopts it. A step that is killed without a word leaves it as well: Kubeflow's retry
adopts it, else the run's exit handler (`launchers.delete_jobs`), the deadline or the Workflow's deletion ends it.

A cancelled run's first write suspends the job, since the step may have milliseconds: Kubeflow's launcher dies of the
same signal, and its container with it. A suspended job holds nothing, and whoever comes next deletes it.

Names carry an attempt: a job that the cluster failed is deleted, and only when it is gone does the next one
start, so that two drivers never write one scratch folder. The stage continues from its last checkpoint there.
"""

import time
from dataclasses import replace
from pathlib import Path

from qwenops.errors import PlatformError, QwenOpsError
from qwenops.platform.context import RunContext
from qwenops.platform.kubernetes.client import Kube
from qwenops.platform.kubernetes.ending import is_evicted
from qwenops.platform.kubernetes.logs import LogStreams
from qwenops.platform.kubernetes.objects import RayJobStatus
from qwenops.platform.kubernetes.ray_manifest import ENDED, FINGERPRINT, RUN, label_value
from qwenops.platform.kubernetes.ray_phases import Verdict, judge
from qwenops.platform.kubernetes.ray_work import Work, driver_error, identify
from qwenops.platform.observe.live import JobState
from qwenops.platform.observe.observed import serve_metrics
from qwenops.platform.stage.events import Events, describe_error
from qwenops.platform.stage.task import (
    Published,
    Task,
    TaskSpec,
    artifact_location,
    do_in_turn,
    find_published,
)
from qwenops.platform.storage import addresses
from qwenops.platform.termination import Terminated, termination_raises
from qwenops.recipe.placement import RayCluster

_MOST_NAMES = 100
# A network file system may show another node's rename late.
_VISIBLE_SECONDS = 60
_DRAIN_SECONDS = 5
# What a pod gets between SIGTERM and SIGKILL is 30 seconds by default.
_HURRIED_SECONDS = 10


class RayJobLauncher:
    """Runs a stage as a RayJob.

    Args:
        kube: The namespace it works in.
        cluster: Pods, deadlines and queue, from the placement.
    """

    def __init__(self, kube: Kube, cluster: RayCluster) -> None:
        self._kube, self._cluster, self._job = kube, cluster, JobState()
        self._name = ""

    def launch(self, task: Task, spec: TaskSpec, context: RunContext) -> Published:
        """Create or adopt the task's RayJob, follow it to its end, delete it, return the artifact.

        Raises:
            QwenOpsError: the stage's own family where its driver said so, else a PlatformError.
        """
        work = Work(spec, task, context, identify(task, spec, context, self._kube))
        with termination_raises(), serve_metrics(context, work.running) as self._job:
            try:
                return self._attempts(work)
            except Terminated:
                self._end(work)
                raise
            except QwenOpsError as error:
                _record_failure(work, error)
                raise

    def _attempts(self, work: Work) -> Published:
        attempt = 0
        for tried in range(1, self._cluster.attempts + 1):
            attempt = self._create_or_adopt(work, attempt)
            error, again = self._attend(work, work.identity.name(attempt))
            if error is None:
                return self._read_back(work)
            if not again or tried == self._cluster.attempts:
                raise error
            print(f"[{work.name}] {error.message}; starting again from the last checkpoint", flush=True)
            attempt += 1
        raise AssertionError("a cluster allows at least one attempt")

    def _create_or_adopt(self, work: Work, first: int) -> int:
        """Number of the attempt that is now there, made here or found alive."""
        for attempt in range(first, first + _MOST_NAMES):
            name = self._name = work.identity.name(attempt)
            if self._kube.create_job(work.manifest(self._cluster, attempt)):
                print(f"[{work.name}] created RayJob {self._kube.namespace}/{name}", flush=True)
                return attempt
            found = self._kube.job(name)
            if (
                found is None
                or found["metadata"].get("labels", {}).get(FINGERPRINT) != work.identity.labels()[FINGERPRINT]
            ):
                continue
            ended = ENDED in found["metadata"].get("annotations", {})
            if not ended and judge(found, self._cluster, time.time()).outcome != "failed":
                print(f"[{work.name}] adopted RayJob {self._kube.namespace}/{name}", flush=True)
                return attempt
            self._delete(work, name, self._cluster.deletion_seconds)
        raise PlatformError(
            f"no free name for a RayJob of {work.name}",
            expected=f"one of {_MOST_NAMES} names",
            found=f"{work.identity.name(first)} and those after it, all taken",
            action=f"kubectl delete rayjobs -n {self._kube.namespace} -l {RUN}={label_value(work.identity.run)}",
        )

    def _attend(self, work: Work, name: str) -> tuple[QwenOpsError | None, bool]:
        """Follow a job to its end and delete it; its error, if any, and whether a new attempt may help."""
        folder = addresses.local_path(work.context.store, work.context) / "logs" / label_value(work.identity.run) / name
        logs = LogStreams(self._kube, folder, work.name)
        self._job.terminal_timestamp, self._job.quota_held = None, True
        try:
            verdict = self._follow(work, name, logs)
            self._job.terminal_timestamp = time.time()
            logs.close(_DRAIN_SECONDS)
            failure = None if verdict.outcome == "succeeded" else self._explain(work, name, verdict, logs)
            self._delete(work, name, self._cluster.deletion_seconds, strict=bool(failure and failure[1]))
        except Terminated:
            raise
        except BaseException:
            self._delete(work, name, _HURRIED_SECONDS)
            raise
        finally:
            logs.close(0)
        return failure or (None, False)

    def _end(self, work: Work) -> None:
        """This process is being ended: leave the job to the next attempt, or delete what there is of it."""
        self._kube.hurry(_HURRIED_SECONDS)
        if is_evicted(self._kube, work.context.pod_name):
            print(f"[{work.name}] this pod is evicted; its RayJob goes on for the next attempt", flush=True)
            return
        # Then by label and not by name: the signal may have come before the answer to the creation.
        selector = ",".join(f"{key}={value}" for key, value in work.identity.labels().items())
        try:
            if self._name:
                self._kube.suspend_job(self._name, ENDED)
            names = [job["metadata"]["name"] for job in self._kube.jobs(selector)]
        except PlatformError as error:
            print(f"[{work.name}] its RayJob could not be deleted: {error}", flush=True)
            return
        for name in names:
            self._delete(work, name, _HURRIED_SECONDS)

    def _follow(self, work: Work, name: str, logs: LogStreams) -> Verdict:
        said = ""
        for job in self._kube.follow_job(name):
            verdict = judge(job, self._cluster, time.time())
            if verdict.sentence != said:
                said = verdict.sentence
                print(f"[{work.name}] RayJob {name}: {said}", flush=True)
            if job is not None:
                self._show_logs(name, job.get("status") or RayJobStatus(), logs)
            if verdict.outcome != "going":
                return verdict
        return judge(None, self._cluster, time.time())

    def _show_logs(self, name: str, status: RayJobStatus, logs: LogStreams) -> None:
        ray_cluster = status.get("rayClusterName")
        try:
            logs.attend(self._kube.pods(f"job-name={name}"))
            if ray_cluster:
                pods = self._kube.pods(f"ray.io/cluster={ray_cluster}")
                logs.attend(pods)
                if self._cluster.submission_mode == "HTTPMode":
                    logs.attend_driver(pods, status.get("jobId") or "")
        except PlatformError as error:
            # The job's end does not depend on its log.
            print(f"[{name}] no log: {error}", flush=True)

    def _explain(self, work: Work, name: str, verdict: Verdict, logs: LogStreams) -> tuple[QwenOpsError, bool]:
        own = driver_error(work, name)
        if own is not None:
            return own, isinstance(own, PlatformError)
        parts = [verdict.reason]
        try:
            parts += [f"  event: {line}" for line in self._kube.events((name,))]
        except PlatformError as error:
            parts.append(f"  events could not be read: {error.message}")
        if logs.tail():
            parts.append("  end of the driver's log:\n    " + logs.tail().replace("\n", "\n    "))
        error = PlatformError(
            f"{work.name}: {verdict.sentence}",
            expected=f"RayJob {self._kube.namespace}/{name} to succeed",
            found="\n".join(parts),
            action=verdict.action,
        )
        return error, verdict.again

    def _delete(self, work: Work, name: str, seconds: float, *, strict: bool = False) -> None:
        """Delete a job and wait for its pods to be gone; `strict` when another driver is to follow."""
        try:
            gone = self._kube.delete_job(name, wait_seconds=seconds)
        except PlatformError as error:
            if strict:
                raise
            print(f"[{work.name}] RayJob {name} could not be deleted: {error}", flush=True)
            return
        if gone:
            self._job.quota_held = False
            return
        if strict:
            raise PlatformError(
                f"RayJob {name} of {work.name} does not go away",
                expected=f"its pods gone within {seconds:.0f} s of the deletion",
                found="an object that is being deleted",
                action="look at its finalizers and at the KubeRay operator, then run again",
            )
        print(f"[{work.name}] RayJob {name} is still being deleted", flush=True)

    def _read_back(self, work: Work) -> Published:
        first, *_ = do_in_turn(work.spec, work.context, lambda task: _read_back(task, work))
        return replace(first, reused=False)


def _read_back(task: Task, work: Work) -> Published:
    deadline, pause = time.monotonic() + _VISIBLE_SECONDS, 0.05
    while True:
        published = find_published(task, work.context, made_now=True)
        if published:
            return published
        if time.monotonic() > deadline:
            node = task.slice.node
            raise PlatformError(
                f"{node} succeeded on the cluster, but its artifact is not here",
                expected=f"an intact artifact {artifact_location(task, work.context)[1]}",
                found=Events(Path(work.context.events), node)
                .read()
                .get("artifact", "no artifact in the driver's events"),
                action="mount the same volume, and use the same image, in the step and in the Ray pods",
            )
        time.sleep(pause)
        pause = min(pause * 2, 2.0)


def _record_failure(work: Work, error: QwenOpsError) -> None:
    """Record `error` of the node that was not done; its driver may have said it itself."""
    events = [Events(Path(work.context.events), node) for node in work.nodes]
    states = [one.read().get("status") for one in events]
    if "failed" not in states:
        place = next((place for place, state in enumerate(states) if state not in ("succeeded", "skipped")), -1)
        events[place].write(status="failed", finished=time.time(), error=describe_error(error))
