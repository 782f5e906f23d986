"""Submitting and scheduling, with the real client against a back end on loopback."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from tests.architecture.places import ROOT
from tests.dags.only_extra import only_extra

from qwenops_pipelines import versions
from qwenops_pipelines.cli import main
from qwenops_pipelines.compile import compile_pipeline
from qwenops_pipelines.dags.pipelines import PIPELINES
from qwenops_pipelines.placements import by_name
from qwenops_pipelines.recipes import load_recipe
from qwenops_pipelines.versions import read_package

CRON = "0 0 3 * * 1"


def names_of(backend):
    return [item["name"] for item in backend.versions.values()]


def add_pipeline(backend, package, text):
    backend.pipelines["p"] = {"pipeline_id": "p", "name": package.name, "display_name": package.name, "namespace": ""}
    backend.add_version("p", package.name, text)


def qwenops(*arguments):
    """Exit status of the command line, run in this process."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code or 0


def test_submit_uploads_a_version_named_by_commit(backend, package, capsys):
    options = ("--host", backend.address, "--commit", "abc123", "--service-account", "qwenops-pipeline")
    assert qwenops("submit", package, *options) == 0
    assert [item["display_name"] for item in backend.pipelines.values()] == ["qwenops-smoke-evaluation"]
    # The first is the one that Kubeflow makes with a pipeline.
    assert names_of(backend) == ["qwenops-smoke-evaluation", "smoke@abc123"]
    (run,) = backend.runs.values()
    assert run["runtime_config"]["parameters"] == {"run_name": "smoke@abc123"}
    assert run["service_account"] == "qwenops-pipeline"
    assert f"{backend.address}/#/runs/details/{run['run_id']}" in capsys.readouterr().out


@pytest.mark.parametrize("namespace", ["", "team"])
def test_submitting_the_same_file_again_uploads_nothing(backend, package, namespace):
    backend.namespace = namespace
    for _ in range(2):
        assert qwenops("submit", package, "--host", backend.address, "--namespace", namespace) == 0
    assert len(backend.pipelines) == len(backend.experiments) == 1
    assert len(names_of(backend)) == len(backend.runs) == 2


def test_name_holds_nothing_that_the_server_reads_as_something_else(backend, package):
    for commit in ("", "1.2+local build"):
        for _ in range(2):
            assert qwenops("submit", package, "--host", backend.address, "--commit", commit) == 0
    named = names_of(backend)[1:]
    assert named[1] == "smoke@1.2-local-build"
    assert len(named) == 2
    assert all(re.fullmatch(r"[\w.@-]+", name) for name in named)


def trigger():
    """Arguments of the chart's trigger, as Kubernetes hands them to its container."""
    values = yaml.safe_load((ROOT / "helm/qwenops/values.yaml").read_text())["trigger"]["args"]
    return [word.replace("$(PIPELINE_ACCOUNT)", "steps").replace("$(POD_NAMESPACE)", "team") for word in values]


@pytest.mark.parametrize("commit", [(), ("--commit", "1.2+local build")])
@pytest.mark.parametrize("users", ["one", "many"])
def test_every_command_may_be_given_again(backend, package, monkeypatch, commit, users):
    """By hand, on a schedule, by the trigger: on a server of one user too, which knows no namespaces."""
    backend.namespace = "team" if users == "many" else ""
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", backend.address)
    _, place, *options = trigger()
    by_hand = ("--namespace", "team") if users == "many" else ()
    commands = [("submit", *by_hand), ("schedule", "--cron", CRON, *by_hand), ("submit", *options)]
    assert place.endswith("/pipeline.yaml")
    for _ in range(2):
        for word, *given in commands:
            assert qwenops(word, package, *given, *commit) == 0
    assert len(backend.experiments) == len(backend.pipelines) == len(backend.recurring) == 1
    assert len(names_of(backend)) == 2
    assert len(backend.runs) == 4
    assert set(backend.answers) == {200}


@pytest.mark.parametrize(("lists", "made"), [(3, 1), (1_000, 2)])
def test_version_that_is_not_ready_yet_is_waited_for_and_left_behind_in_the_end(
    backend, package, monkeypatch, lists, made
):
    monkeypatch.setattr(versions, "_READY_PAUSES", (0.0, 0.0, 0.0))
    known = read_package(package)
    add_pipeline(backend, known, package.read_text())
    backend.add_version("p", known.version, package.read_text(), known.digest, unready=lists)
    assert qwenops("submit", package, "--host", backend.address) == 0
    assert len(names_of(backend)) == 1 + made


def test_commit_of_any_length_names_a_version(backend, package):
    for _ in range(2):
        assert qwenops("submit", package, "--host", backend.address, "--commit", "release/" + "long-" * 60) == 0
    assert len(names_of(backend)) == 2
    assert len(backend.runs) == 2


def test_recurring_run_is_found_among_many(backend, package, capsys):
    assert qwenops("schedule", package, "--host", backend.address, "--cron", CRON) == 0
    ((key, own),) = backend.recurring.items()
    others = {str(n): own | {"display_name": f"other {n}", "recurring_run_id": str(n)} for n in range(300)}
    backend.recurring.clear()
    backend.recurring.update(others | {key: own})
    assert qwenops("schedule", package, "--host", backend.address, "--cron", CRON) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("kept")
    assert len(backend.recurring) == 301


@pytest.mark.parametrize("command", [("submit",), ("schedule", "--cron", CRON)])
@pytest.mark.parametrize("what", ["experiment", "pipeline", "version", "renamed"])
def test_what_another_client_made_first_is_used(backend, package, command, what):
    """A CronJob's second pod, or a person at the same moment; and a version whose shown name was changed in the UI."""
    word, *options = command
    known = read_package(package)
    text = package.read_text()
    backend.experiments["e"] = {"experiment_id": "e", "display_name": "qwenops", "namespace": ""}
    if what == "experiment":
        backend.experiments.clear()
        backend.meanwhile = lambda: backend.experiments.update(
            e={"experiment_id": "e", "display_name": "qwenops", "namespace": ""}
        )
    elif what == "pipeline":
        backend.meanwhile = lambda: add_pipeline(backend, known, text)
    else:
        add_pipeline(backend, known, text)
        if what == "renamed":
            backend.add_version("p", known.version, text, known.digest)["display_name"] = "our best"
        else:
            backend.meanwhile = lambda: backend.add_version("p", known.version, text, known.digest)
    assert qwenops(word, package, "--host", backend.address, *options) == 0
    assert len(backend.pipelines) == len(backend.experiments) == 1
    assert sum(version["name"] == known.version for version in backend.versions.values()) == 1
    assert len(backend.runs) + len(backend.recurring) == 1


def test_same_commit_at_another_placement_is_another_version(backend, package, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(package.read_text().replace("NVIDIA-H200", "NVIDIA-H100"))
    for path in (package, other, package, other):
        assert qwenops("submit", path, "--host", backend.address, "--commit", "abc123") == 0
    names = names_of(backend)[1:]
    assert len(names) == 2
    assert all(name.startswith("smoke@abc123") for name in names)


def test_overrides_change_the_compiled_recipe(backend, package):
    change = ("--set", "sft.training.learning_rate=0.00123", "--start-from", "monday", "--fail-on-gate")
    assert qwenops("submit", package, "--host", backend.address, *change) == 0
    (run,) = backend.runs.values()
    given = run["runtime_config"]["parameters"]
    assert json.loads(given["recipe_text"])["sft"]["training"]["learning_rate"] == 0.00123
    assert (given["start_from"], given["failed_gate"]) == ("monday", "fail")


def test_schedule_is_created_kept_and_replaced(backend, package, capsys):
    for cron, word in ((CRON, "created"), (CRON, "kept"), ("0 0 4 * * *", "replaced")):
        assert qwenops("schedule", package, "--host", backend.address, "--cron", cron) == 0
        assert capsys.readouterr().out.startswith(word)
    (recurring,) = backend.recurring.values()
    assert recurring["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * *"
    # Without a version a recurring run follows the newest one.
    assert "pipeline_version_id" not in recurring["pipeline_version_reference"]


def test_token_comes_from_a_file_and_a_wrong_one_is_named(backend, package, monkeypatch, tmp_path, capsys):
    backend.token = "right"
    assert qwenops("submit", package, "--host", backend.address) == 5
    assert "401" in capsys.readouterr().err
    (tmp_path / "token").write_text("right\n")
    monkeypatch.setenv("KFP_TOKEN_FILE", str(tmp_path / "token"))
    assert qwenops("submit", package, "--host", backend.address) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--namespace", "elsewhere"), ("403", "--namespace")),
        (("--namespace", "team", "--experiment", "unheard-of"), ("unknown experiment", "unheard-of")),
    ],
)
def test_unknown_places_are_named(backend, package, capsys, options, words):
    backend.namespace = "team"
    assert qwenops("submit", package, "--host", backend.address, *options) == 5
    error = capsys.readouterr().err
    assert all(word in error for word in words)
    assert "Traceback" not in error


def test_experiment_is_found_whatever_its_name_holds(backend, package):
    name = "C++ at 50% + more"
    backend.experiments["e"] = {"experiment_id": "e", "display_name": name, "namespace": ""}
    assert qwenops("submit", package, "--host", backend.address, "--experiment", name) == 0


def test_unreachable_host_is_one_clear_error(backend, package, capsys):
    assert qwenops("submit", package, "--host", "http://127.0.0.1:9") == 5
    assert "port-forward" in capsys.readouterr().err


def test_login_page_is_recognised(backend, package, capsys):
    backend.login_page = True
    assert qwenops("submit", package, "--host", backend.address) == 5
    assert "KFP_TOKEN" in capsys.readouterr().err


def test_file_that_is_no_pipeline_and_field_that_is_not_in_the_form_are_refused(backend, package, tmp_path, capsys):
    (tmp_path / "x.yaml").write_text("a: 1\n")
    assert qwenops("submit", tmp_path / "x.yaml", "--host", backend.address) == 2
    assert qwenops("schedule", package, "--host", backend.address, "--cron", "0 3 * * 1") == 2
    data = tmp_path / "data.yaml"
    compile_pipeline(load_recipe("smoke", []), by_name("h200_node"), data, pipeline=PIPELINES["data"])
    assert qwenops("submit", data, "--host", backend.address, "--fail-on-gate") == 2
    assert "failed_gate" in capsys.readouterr().err
    assert backend.requests == []


def test_rerun_script_compiles_runs_and_summarises(backend, tmp_path):
    """As CI has it: the extra `pipelines` alone, and nothing set that has a default."""
    backend.outcomes = [("SUCCEEDED", {"register": "succeeded"})]
    summary = tmp_path / "summary.md"
    environment = {
        **os.environ,
        "PATH": f"{shim(tmp_path)}:{os.environ['PATH']}",
        "PYTHONPATH": str(only_extra("pipelines", tmp_path / "only")),
        "KF_PIPELINES_ENDPOINT": backend.address,
        "RECIPE": "smoke",
        "PIPELINE": "evaluation",
        "OVERRIDES": "sft.training.learning_rate=0.00123\n",
        "SUMMARY": str(summary),
        "COMMIT": "abc123",
    }
    done = subprocess.run([ROOT / "infra/ci/rerun.sh"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = backend.runs.values()
    assert run["runtime_config"]["parameters"]["failed_gate"] == "fail"
    assert run["service_account"] == "qwenops-pipeline"
    assert "| register | succeeded |" in summary.read_text()
    done = subprocess.run(
        [ROOT / "infra/ci/rerun.sh"], env=environment | {"CRON": CRON}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [found["service_account"] for found in backend.recurring.values()] == ["qwenops-pipeline"]
    assert len(backend.runs) == 1


@pytest.mark.parametrize(
    ("modules", "there"),
    [("numpy", False), ("ray", False), ("kfp.dsl, kfp.kubernetes, yaml, pydantic, kubernetes", True)],
)
def test_environment_of_one_extra_lacks_what_another_brings(tmp_path, modules, there):
    """The yardstick of the test above: in such an environment a stage's own libraries are really missing."""
    environment = {**os.environ, "PYTHONPATH": str(only_extra("pipelines", tmp_path / "only"))}
    command = [sys.executable, "-c", f"import {modules}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == there, done.stderr


def test_rerun_script_ends_well_where_there_is_no_cluster(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "KF_PIPELINES_ENDPOINT"}
    done = subprocess.run([ROOT / "infra/ci/rerun.sh"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "not set" in done.stdout


def shim(folder):
    """A folder with a `qwenops` that runs this interpreter's."""
    program = folder / "bin" / "qwenops"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m qwenops_pipelines.cli "$@"\n')
    program.chmod(0o755)
    return program.parent
