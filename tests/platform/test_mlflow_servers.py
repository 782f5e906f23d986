"""The cluster's record: an MLflow server on PostgreSQL with artifacts in S3, used by two namespaces."""

import os
from pathlib import Path

import boto3
import pytest
from tests.platform.registering import SCORE, compete, register
from tests.platform.servers import KEYS, mlflow_server, postgresql_programs, postgresql_server, s3_server
from tests.platform.test_tracking import _children, _context, _publish

from qwenops.platform.mlflow import registry
from qwenops.platform.mlflow.tracking import MlflowClient, close_run, log_stage, open_run

PROGRAMS = postgresql_programs()
pytestmark = [
    pytest.mark.skipif(PROGRAMS is None, reason="PostgreSQL is not installed (apt-get install postgresql)"),
]


@pytest.fixture(scope="module")
def endpoint():
    """S3 endpoint with a bucket `mlflow`; this process and those it starts use it."""
    with s3_server() as address, pytest.MonkeyPatch.context() as patch:
        for name, value in (KEYS | {"MLFLOW_S3_ENDPOINT_URL": address}).items():
            patch.setenv(name, value)
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket="mlflow")
        yield address


@pytest.fixture(scope="module")
def database():
    with postgresql_server(PROGRAMS) as address:
        yield address


@pytest.fixture(scope="module")
def uri(endpoint, database):
    with mlflow_server(database, "s3://mlflow/artifacts") as address:
        yield address


def _keys(endpoint: str) -> list[str]:
    found = boto3.client("s3", endpoint_url=endpoint).list_objects_v2(Bucket="mlflow")
    return [item["Key"] for item in found.get("Contents", [])]


def test_whole_record_goes_through_the_server_and_comes_back(uri, endpoint, tmp_path):
    run_id = open_run(uri, "", "night", "tiny", "ab" * 32, {"pretrain": {"steps": 3}})
    extend, extend_manifest = _publish(tmp_path, "extend", checkpoint="yes")
    evaluation, evaluation_manifest = _publish(tmp_path, "long_context", inputs={"checkpoint": extend})
    log_stage(_context(uri, run_id), extend_manifest, extend)
    log_stage(_context(uri, run_id), evaluation_manifest, evaluation)
    (tmp_path / "report.html").write_text("<html>night</html>")
    close_run(_context(uri, run_id), "FINISHED", {"seconds": 3.0, "stages": {}}, tmp_path, {})

    client = MlflowClient(uri)
    runs = {run.info.run_name: run for run in _children(uri, run_id)}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert client.get_run(run_id).data.metrics["seconds"] == 3.0
    assert len(client.get_metric_history(runs["extend"].info.run_id, "curve/loss.main")) == 3
    made = client.get_run(runs["extend"].info.run_id).outputs.model_outputs
    used = client.get_run(runs["long_context"].info.run_id).inputs.model_inputs
    assert [model.model_id for model in made] == [model.model_id for model in used] != []
    page = client.download_artifacts(run_id, "report.html", str(tmp_path))
    assert (tmp_path / "report.html").read_text() == Path(page).read_text()
    assert any(key.startswith("artifacts/") and key.endswith("report.html") for key in _keys(endpoint))


@pytest.mark.integration
def test_registry_moves_aliases_on_postgresql(database):
    assert register(database, "chat", 0.5) == registry.CHAMPION
    assert register(database, "chat", 0.4) == registry.CANDIDATE
    assert registry.champion(database, "chat").number == "1"
    trials = [{f"trial-{number}": scores} for number, scores in enumerate([(0.5, 0.6, 0.7), (0.7, 0.6, 0.5)] * 25)]
    compete(database, trials, 3)
    assert {registry.champion(database, name).figures[SCORE] for trial in trials for name in trial} == {0.7}


def test_client_that_writes_to_the_bucket_itself_reads_its_artifact_back(database, endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "direct")
    run_id = open_run(database, "s3://mlflow/direct", "night", "tiny", "cd" * 32, {"seed": 1})
    folder, manifest = _publish(tmp_path, "dedup")
    log_stage(_context(database, run_id), manifest, folder)
    (run,) = _children(database, run_id)
    client = MlflowClient(database)
    assert run.info.artifact_uri.startswith("s3://mlflow/direct/")
    back = client.download_artifacts(run.info.run_id, "summary.md", str(tmp_path))
    assert Path(back).read_text() == "# summary"
    assert any(key.startswith("direct/") and key.endswith("summary.md") for key in _keys(endpoint))


def test_two_namespaces_keep_their_runs_in_experiments_of_their_own(uri, monkeypatch):
    opened = {}
    for namespace in ("team-a", "team-b"):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", namespace)
        opened[namespace] = open_run(uri, "", "night", "tiny", "ef" * 32, {})
    client = MlflowClient(uri)
    experiments = {name: client.get_run(run_id).info.experiment_id for name, run_id in opened.items()}
    assert experiments["team-a"] != experiments["team-b"]
    for name, experiment_id in experiments.items():
        assert client.get_experiment(experiment_id).name == name
        assert [run.info.run_id for run in client.search_runs([experiment_id])] == [opened[name]]


def test_no_secret_reaches_database_or_bucket(uri, endpoint, tmp_path):
    secret = KEYS["AWS_SECRET_ACCESS_KEY"]
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == secret
    run_id = open_run(uri, "", "night", "tiny", "ab" * 32, {"judge": {"header": f"Bearer {secret}"}}, {"note": secret})
    record = {"seconds": 1.0, "stages": {}, "error": f"401 {secret}"}
    close_run(_context(uri, run_id), "FAILED", record, tmp_path, {})
    run = MlflowClient(uri).get_run(run_id)
    assert secret not in str(run.to_dictionary())
    assert run.data.params["judge.header"] == "Bearer ***"
    client = boto3.client("s3", endpoint_url=endpoint)
    bodies = [client.get_object(Bucket="mlflow", Key=key)["Body"].read() for key in _keys(endpoint) if run_id in key]
    assert len(bodies) == 2
    assert all(secret.encode() not in body for body in bodies)
