"""Processor, memory and (with a GPU) accelerator use of a stage land in its MLflow run."""

import time
from pathlib import Path

import pytest
from tests.platform.test_stage import run_counter, toy  # noqa: F401

from qwenops.errors import StageError
from qwenops.platform.mlflow.tracking import MlflowClient, open_run

_MACHINE = {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"}
_SLOW_RUN = """
import time
def run(config, *, stage):
    time.sleep(1.5)
    (stage.out / "value.txt").write_text("1")
    if config.fault:
        raise KeyError("oops")
"""


@pytest.fixture
def parent(toy, tmp_path, monkeypatch):  # noqa: F811
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    (tmp_path / "package" / "toy" / "counter" / "run.py").write_text(_SLOW_RUN)
    run_id = open_run(uri, str(tmp_path / "artifacts"), "a run", "tiny", "ab" * 32, {})
    for name, value in (("TRACKING_URI", uri), ("PARENT_RUN_ID", run_id), ("SYSTEM_METRICS", "yes")):
        monkeypatch.setenv(f"QWENOPS_{name}", value)
    return MlflowClient(uri), run_id


def _child(client: MlflowClient, parent_id: str):
    experiment = client.get_run(parent_id).info.experiment_id
    (run,) = client.search_runs([experiment], filter_string=f"tags.mlflow.parentRunId = '{parent_id}'")
    return run


def test_machine_metrics_are_in_the_one_run_of_the_stage(parent):
    client, parent_id = parent
    run_counter()
    run = _child(client, parent_id)
    assert (run.info.run_name, run.info.status) == ("counter", "FINISHED")
    assert set(run.data.metrics) >= _MACHINE
    assert run.data.metrics["system/system_memory_usage_megabytes"] > 10
    assert run.data.metrics["seconds"] >= 1.5
    history = client.get_metric_history(run.info.run_id, "system/cpu_utilization_percentage")
    assert len(history) >= 2
    assert abs(history[-1].timestamp / 1000 - time.time()) < 60


def test_failed_stage_leaves_a_failed_run_with_its_metrics(parent):
    client, parent_id = parent
    with pytest.raises(StageError):
        run_counter(fault="bug")
    run = _child(client, parent_id)
    assert run.info.status == "FAILED"
    assert set(run.data.metrics) >= _MACHINE


@pytest.mark.gpu
@pytest.mark.skipif(not Path("/dev/nvidia0").exists(), reason="no NVIDIA GPU on this machine")
def test_gpu_memory_and_utilisation_are_there_on_a_machine_that_has_one(parent):
    client, parent_id = parent
    run_counter()
    names = set(_child(client, parent_id).data.metrics)
    assert {"system/gpu_0_memory_usage_megabytes", "system/gpu_0_utilization_percentage"} <= names
