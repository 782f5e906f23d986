"""Following a run on Kubeflow: what is printed of it, and what its end is called."""

import pytest
from tests.dags import argo_nodes
from tests.dags.test_submit import qwenops

from qwenops.platform.kubernetes.workflow import Step, first_failure, is_terminated, read_steps

ENDED = {"resolve-recipe": "succeeded", "long-context": "cached", "benchmarks": "succeeded"}


def follow(backend, package, *options):
    return qwenops("submit", package, "--host", backend.address, "--wait", *options)


def lines(capsys):
    """Steps and their states as they were printed."""
    printed = capsys.readouterr().out.splitlines()[1:]
    return [tuple(line.split(maxsplit=2)) for line in printed]


def test_one_line_a_step_says_whether_it_was_cached(backend, package, tmp_path, capsys):
    running = {"resolve-recipe": "succeeded", "long-context": "cached", "benchmarks": "running"}
    backend.outcomes = [("PENDING", {}), ("RUNNING", running), ("SUCCEEDED", ENDED | {"finish-run": "succeeded"})]
    summary = tmp_path / "summary.md"
    assert follow(backend, package, "--summary", summary) == 0
    assert lines(capsys) == list((ENDED | {"finish-run": "succeeded"}).items())
    rows = [line for line in summary.read_text().splitlines() if line.startswith("| ")]
    assert rows[1:] == [f"| {name} | {state} |  |" for name, state in (ENDED | {"finish-run": "succeeded"}).items()]


@pytest.mark.parametrize("options", [{}, {"attempts": 2}, {"compressed": True}])
def test_failed_step_is_named_with_what_killed_it(backend, package, tmp_path, capsys, options):
    killed = "main: OOMKilled (exit code 137): a|b\nc"
    steps = {"resolve-recipe": "succeeded", "benchmarks": ("failed", killed), "safety": "omitted"}
    backend.outcomes = [("FAILED", steps | {"finish-run": "succeeded"}, options)]
    assert follow(backend, package, "--summary", tmp_path / "summary.md") == 4
    printed = capsys.readouterr()
    assert "failed: benchmarks (main: OOMKilled (exit code 137)" in printed.err
    assert "safety" not in printed.out
    assert "| benchmarks | failed | main: OOMKilled (exit code 137): a\\|b c |" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize(
    ("state", "steps", "options", "status", "word"),
    [
        ("FAILED", {"register": "succeeded", "enforce-gate": ("failed", "Error (exit code 1)")}, {}, 6, "did not pass"),
        ("FAILED", {"benchmarks": "failed"}, {}, 4, "failed: benchmarks"),
        ("FAILED", {"benchmarks": ("driver", "failed to resolve inputs")}, {}, 4, "failed to resolve inputs"),
        # A step that failed keeps the gate from being judged; so it is no failed gate.
        ("FAILED", {"benchmarks": "failed", "enforce-gate": "omitted"}, {}, 4, "failed: benchmarks"),
        ("FAILED", {"benchmarks": ("failed", "Step exceeded its deadline")}, {"terminated": True}, 5, "was stopped"),
        ("FAILED", {}, {}, 4, "no step says why"),
        ("CANCELED", {}, {}, 5, "was stopped"),
    ],
)
def test_exit_status_tells_the_outcome(backend, package, capsys, state, steps, options, status, word):
    backend.outcomes = [(state, steps, options)]
    assert follow(backend, package) == status
    printed = capsys.readouterr()
    assert word in printed.out + printed.err


def test_server_without_the_older_api_still_tells_the_steps(backend, package, capsys):
    backend.has_older_api = False
    backend.outcomes = [("FAILED", ENDED | {"safety": "failed"})]
    assert follow(backend, package) == 4
    printed = capsys.readouterr()
    assert "failed: safety" in printed.err
    states = dict(line.split() for line in printed.out.splitlines()[1:])
    assert states == dict.fromkeys(ENDED, "succeeded") | {"safety": "failed"}


def test_waiting_ends_at_the_timeout(backend, package, capsys):
    backend.outcomes = [("RUNNING", {})]
    assert follow(backend, package, "--timeout", "0.05") == 5
    assert "--timeout" in capsys.readouterr().err


def test_step_whose_second_attempt_succeeded_has_not_failed():
    steps = read_steps(argo_nodes.workflow("run", {"benchmarks": "succeeded"}, attempts=2))
    assert steps == {"benchmarks": Step("succeeded")}
    assert first_failure(steps) is None


def test_first_of_several_failures_is_the_cause():
    found = argo_nodes.workflow("run", {"sft": ("failed", "first"), "mixture": ("failed", "second")}, attempts=1)
    name, step = first_failure(read_steps(found))
    assert (name, step.message) == ("sft", "first")
    assert not is_terminated(found)


@pytest.mark.parametrize("workflow", [{}, {"status": None, "spec": None}, {"status": {"phase": "Pending"}}])
def test_workflow_that_has_not_begun_has_no_steps(workflow):
    assert read_steps(workflow) == {}
    assert not is_terminated(workflow)


def test_driver_of_the_whole_dag_is_named_where_it_failed():
    found = argo_nodes.workflow("run", {})
    (driver,) = [n for n in found["status"]["nodes"].values() if n["displayName"] == "root-driver"]
    driver |= {"phase": "Error", "message": "main: Error (exit code 1): no pipeline root"}
    assert first_failure(read_steps(found))[0] == "root-driver"
