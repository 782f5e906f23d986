"""What a RayJob's status means: go on, succeeded, or failed with an error family. A pure function of the object.

The status words are those of KubeRay 1.5 to 1.7; the table in this folder's README says the same in prose. A word
that is not known is waited out under the deadlines, because a newer operator may have added a phase.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from qwenops.platform.kubernetes.objects import RayJob, RayJobStatus
from qwenops.recipe.placement import RayCluster

# Seconds the operator gets beyond a deadline of its own before the step takes it for dead.
_GRACE_SECONDS = 120


@dataclass(frozen=True)
class Verdict:
    """What to do about a RayJob.

    Attributes:
        outcome: Whether the job goes on, succeeded or failed.
        sentence: What is the matter, for people.
        action: What the reader should do; empty unless it failed.
        again: Whether a new attempt may help, since the cluster and not the work was at fault.
        reason: KubeRay's word, or ours for what KubeRay did not notice.
    """

    outcome: Literal["going", "succeeded", "failed"]
    sentence: str
    action: str = ""
    again: bool = False
    reason: str = ""


# Reason of a failed deployment: sentence, action, whether a new attempt may help.
_REASONS: dict[str, tuple[str, str, bool]] = {
    "AppFailed": (
        "the driver ended without a result: killed, out of memory, or its head pod was lost",
        "look at the log above and at the events; ask for more memory if it was killed for it",
        True,
    ),
    "SubmissionFailed": (
        "the job could not be submitted to its Ray cluster",
        "look at the submitter's log and events; the image must hold ray and bash",
        True,
    ),
    "DeadlineExceeded": (
        "the job ran longer than active_deadline_seconds",
        "raise active_deadline_seconds of the placement's cluster; the next run continues from the checkpoint",
        False,
    ),
    "PreRunningDeadlineExceeded": (
        "the Ray cluster was not running within pre_running_deadline_seconds",
        "look at the events: image pull, unschedulable pods, missing volumes",
        False,
    ),
    "JobDeploymentStatusTransitionGracePeriodExceeded": (
        "the operator and the Ray job disagreed about the job's state for too long",
        "look at the operator's log; a new attempt continues from the checkpoint",
        True,
    ),
    "ValidationFailed": (
        "the operator refused the RayJob",
        "correct the placement's cluster as the message says",
        False,
    ),
}
_PHASES: dict[str, str] = {
    "": "waiting for the KubeRay operator",
    "Initializing": "starting the Ray cluster",
    "Waiting": "waiting for a job id",
    "Running": "running",
    "Suspending": "being suspended; its pods are removed",
    "Suspended": "suspended, waiting in the queue",
    "Retrying": "being retried by the operator on a new cluster",
    "Scheduling": "being scheduled",
    "Scheduled": "scheduled",
}


def judge(job: RayJob | None, cluster: RayCluster, now: float) -> Verdict:
    """What the RayJob's state means.

    Args:
        job: The object, or None when it is gone.
        cluster: Its limits.
        now: Seconds since the epoch.
    """
    if job is None or job["metadata"].get("deletionTimestamp"):
        return _failed("Deleted", "somebody deleted the RayJob", "run again; finished stages are kept")
    status = job.get("status") or RayJobStatus()
    phase, ray = status.get("jobDeploymentStatus") or "", status.get("jobStatus") or ""
    if phase == "Complete":
        return _completed(ray, status)
    if phase in ("Failed", "ValidationFailed"):
        reason = status.get("reason") or phase
        known = _REASONS.get(reason)
        sentence, action, again = known or (f"the RayJob failed: {reason}", "look at the operator's log", True)
        return _failed(reason, sentence, action, again=again, message=status.get("message") or "")
    return _overdue(job, phase, cluster, now) or _going(job, phase, ray)


def _completed(ray: str, status: RayJobStatus) -> Verdict:
    if ray == "SUCCEEDED":
        return Verdict("succeeded", "succeeded")
    if ray == "STOPPED":
        return _failed("Stopped", "somebody stopped the Ray job", "run again; it continues from the checkpoint")
    sentence, action, again = _REASONS["AppFailed"]
    return _failed("AppFailed", sentence, action, again=again, message=status.get("message") or "")


def _going(job: RayJob, phase: str, ray: str) -> Verdict:
    if not phase and job["spec"].get("suspend"):
        phase = "Suspended"
    sentence = _PHASES.get(phase, f"in the unknown phase {phase}")
    return Verdict("going", f"{sentence} (job {ray})" if ray else sentence)


def _overdue(job: RayJob, phase: str, cluster: RayCluster, now: float) -> Verdict | None:
    """A failure that the operator should have declared, or cannot: it is dead, or the queue never admits."""
    created = job["metadata"]["creationTimestamp"]
    waited = now - _seconds(created)
    started = (job.get("status") or RayJobStatus()).get("startTime") or (created if phase else "")
    if phase in ("Suspended", "Suspending") or job["spec"].get("suspend"):
        if waited > cluster.queue_seconds:
            action = f"look at the queue: kubectl get workloads; LocalQueue {cluster.queue or 'none'}"
            return _failed("QueueExceeded", "the job waited in the queue longer than queue_seconds", action)
        return None
    if not started:
        # A job may have spent its time in the queue before the operator saw it.
        allowed = cluster.operator_seconds + (cluster.queue_seconds if cluster.queue else 0)
        action = "is the KubeRay operator running, and does it watch this namespace?"
        late = waited > allowed
        return _failed("NoOperator", "no operator took the RayJob up", action) if late else None
    ran = now - _seconds(started)
    if phase in ("Initializing", "Waiting") and ran > cluster.pre_running_deadline_seconds + _GRACE_SECONDS:
        sentence, action, again = _REASONS["PreRunningDeadlineExceeded"]
        return _failed("PreRunningDeadlineExceeded", sentence, action, again=again)
    # In other phases the start time is that of an earlier retry, or from before a suspension.
    if phase == "Running" and ran > cluster.active_deadline_seconds + _GRACE_SECONDS:
        sentence, action, again = _REASONS["DeadlineExceeded"]
        return _failed("DeadlineExceeded", sentence, action, again=again)
    return None


def _failed(reason: str, sentence: str, action: str, *, again: bool = False, message: str = "") -> Verdict:
    return Verdict("failed", f"{sentence}: {message}" if message else sentence, action, again, reason)


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
