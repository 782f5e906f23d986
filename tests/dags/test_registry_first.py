"""A run looks at the model registry before it computes anything."""

import socket

import pytest
from tests.dags.conftest import qwenops


@pytest.fixture
def dead_server(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        yield address


def test_run_with_a_dead_server_ends_before_its_first_stage_with_one_message(dead_server, tmp_path):
    result = qwenops("run", "smoke", "--out", tmp_path)
    assert result.returncode == 5
    assert f"the MLflow server {dead_server} does not answer" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "stages").exists()


def test_doctor_tries_the_registry_that_a_run_would_use(dead_server, tmp_path, monkeypatch):
    result = qwenops("doctor")
    assert result.returncode == 5
    assert f"missing  models can be registered at {dead_server}" in result.stdout
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert f"ok       runs can be recorded in {tmp_path / 'data' / 'qwenops'}" in qwenops("doctor").stdout
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    assert f"missing  runs can be recorded in {tmp_path / 'file' / 'qwenops'}" in qwenops("doctor").stdout
