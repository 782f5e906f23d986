"""One run of the smoke recipe, shared by the tests of this folder."""

import os
import subprocess
import sys

import pytest


def qwenops(*arguments, **environment):
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "qwenops_pipelines.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """Folder of a finished run of `smoke`."""
    out = tmp_path_factory.mktemp("runs") / "smoke"
    result = qwenops("run", "smoke", "--out", out)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
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
