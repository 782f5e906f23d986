"""One run of the smoke recipe, shared by the tests of this folder."""

import json
import os
import shutil
import subprocess
import sys
from subprocess import CompletedProcess

import pytest
from filelock import FileLock
from tests.dags.kubeflow_server import kubeflow

from qwenops_pipelines import follow
from qwenops_pipelines.cli import main
from qwenops_pipelines.compile import compile_pipeline
from qwenops_pipelines.dags.pipelines import PIPELINES
from qwenops_pipelines.placements import by_name
from qwenops_pipelines.recipes import load_recipe


def qwenops(*arguments, **environment):
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "qwenops_pipelines.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def record_of(out):
    """The record of the run in a folder."""
    return json.loads((out / "run.json").read_text())


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory, worker_id):
    """Folder of a finished run of `smoke`, one for all workers; nothing goes on with it (`started` is a copy)."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    out = shared / "smoke"
    with FileLock(shared / "smoke.lock"):
        if not (shared / "smoke.done").exists():
            result = qwenops("run", "smoke", "--out", out)
            assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
            (shared / "smoke.done").touch()
    return out


@pytest.fixture(scope="module")
def started(smoke_run, tmp_path_factory):
    """Folder of a finished run that a module may go on with."""
    out = tmp_path_factory.mktemp("runs") / "started"
    shutil.copytree(smoke_run, out, symlinks=True, ignore=shutil.ignore_patterns("kfp", ".lock"))
    return out


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Store of a cluster on which run-1 is going on, without MLflow."""
    for name in [name for name in os.environ if name.startswith(("QWENOPS_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    for name, value in (("STORE", tmp_path / "artifacts"), ("EVENTS", tmp_path / "events"), ("CACHE", tmp_path)):
        monkeypatch.setenv(f"QWENOPS_{name}", str(value))
    monkeypatch.setenv("QWENOPS_RUN_ID", "run-1")
    return tmp_path / "artifacts"


@pytest.fixture
def typed(capsys):
    """`qwenops` in this process: the same answer, without the seconds in which an interpreter starts."""

    def run(*arguments):
        words = list(map(str, arguments))
        with pytest.raises(SystemExit) as ended:
            main(words)
        return CompletedProcess(words, ended.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """A compiled pipeline, the one with a gate and few stages."""
    path = tmp_path_factory.mktemp("compiled") / "evaluation.yaml"
    pipeline = PIPELINES["evaluation"]
    compile_pipeline(load_recipe("smoke", []), by_name("h200_node"), path, pipeline=pipeline)
    return path


@pytest.fixture
def backend(monkeypatch, tmp_path):
    """An empty Kubeflow back end, and nothing in the environment that names another."""
    for name in ("KFP_TOKEN", "KFP_TOKEN_FILE", "KF_PIPELINES_SA_TOKEN_PATH", "KF_PIPELINES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("kfp.client.client.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "none.json"))
    monkeypatch.setattr(follow, "_POLL_SECONDS", 0.01)
    with kubeflow() as (address, held):
        held.address = address
        yield held
