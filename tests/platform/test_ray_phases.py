"""Every phase and reason of KubeRay has a meaning, and a job that nobody minds ends at a deadline."""

from datetime import UTC, datetime

import pytest

from qwenops.platform.kubernetes.ray_phases import judge
from qwenops.recipe.placement import RayCluster

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()


def stamp(seconds_ago):
    return datetime.fromtimestamp(NOW - seconds_ago, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def job(phase="", status="", reason="", *, age=10, started=None, suspend=False, **facts):
    body = {"jobDeploymentStatus": phase, "jobStatus": status, "reason": reason}
    body |= {"startTime": stamp(started)} if started is not None else {}
    return {"metadata": {"creationTimestamp": stamp(age)}, "spec": {"suspend": suspend}, "status": body | facts}


def verdict(*arguments, cluster=None, **options):
    return judge(job(*arguments, **options), cluster or RayCluster(), NOW)


@pytest.mark.parametrize(
    "phase", ["", "Initializing", "Running", "Suspending", "Suspended", "Retrying", "Waiting", "Scheduling", "Newer"]
)
@pytest.mark.parametrize("status", ["", "PENDING", "RUNNING"])
def test_phase_before_the_end_goes_on(phase, status):
    assert verdict(phase, status, started=5).outcome == "going"


def test_job_without_a_status_goes_on():
    fresh = job()
    del fresh["status"]
    assert judge(fresh, RayCluster(), NOW).outcome == "going"


@pytest.mark.parametrize(
    ("phase", "status", "reason", "again"),
    [
        ("Failed", "FAILED", "AppFailed", True),
        ("Failed", "", "SubmissionFailed", True),
        ("Failed", "RUNNING", "DeadlineExceeded", False),
        ("Failed", "", "PreRunningDeadlineExceeded", False),
        ("Failed", "FAILED", "JobDeploymentStatusTransitionGracePeriodExceeded", True),
        ("ValidationFailed", "", "ValidationFailed", False),
        ("ValidationFailed", "", "", False),
        ("Failed", "", "NewerReason", True),
        ("Failed", "", "", True),
        ("Complete", "FAILED", "", True),
        ("Complete", "", "", True),
        ("Complete", "STOPPED", "", False),
    ],
)
def test_end_that_is_no_success_says_what_to_do_and_whether_to_try_again(phase, status, reason, again):
    found = verdict(phase, status, reason, message="the operator's words")
    assert (found.outcome, found.again) == ("failed", again)
    assert found.action and found.sentence and found.reason
    if phase != "Complete" or status == "FAILED":
        assert "the operator's words" in found.sentence


def test_success_needs_both_words():
    assert verdict("Complete", "SUCCEEDED").outcome == "succeeded"
    # The Ray job may have ended while the submitter still prints its log.
    assert verdict("Running", "SUCCEEDED", started=5).outcome == "going"


def test_deleted_job_has_failed():
    assert judge(None, RayCluster(), NOW).reason == "Deleted"
    dying = job("Running", "RUNNING")
    dying["metadata"]["deletionTimestamp"] = stamp(1)
    assert judge(dying, RayCluster(), NOW).reason == "Deleted"


LIMITS = RayCluster(
    queue_seconds=1000, operator_seconds=60, pre_running_deadline_seconds=100, active_deadline_seconds=500
)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (dict(age=59), ""),
        (dict(age=61), "NoOperator"),
        (dict(age=900, suspend=True), ""),
        (dict(age=1001, suspend=True), "QueueExceeded"),
        (dict(phase="Suspended", age=1001), "QueueExceeded"),
        (dict(phase="Initializing", age=300, started=219), ""),
        (dict(phase="Initializing", age=300, started=221), "PreRunningDeadlineExceeded"),
        (dict(phase="Running", age=900, started=619), ""),
        (dict(phase="Running", age=900, started=621), "DeadlineExceeded"),
        (dict(phase="Initializing", age=219), ""),
        (dict(phase="Initializing", age=221), "PreRunningDeadlineExceeded"),
        # A start time from before a suspension or a retry says nothing.
        (dict(phase="", age=900, started=800), ""),
        (dict(phase="Retrying", age=900, started=800), ""),
    ],
)
def test_job_that_nobody_minds_ends_at_a_deadline(state, reason):
    found = verdict(cluster=LIMITS, **state)
    assert (found.outcome, found.reason) == (("failed", reason) if reason else ("going", ""))


def test_wait_in_the_queue_is_no_silence_of_the_operator():
    queued = LIMITS.model_copy(update={"queue": "team"})
    assert verdict(cluster=queued, age=1050).outcome == "going"
    assert verdict(cluster=queued, age=1061).reason == "NoOperator"
