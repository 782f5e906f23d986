"""Registration on real MLflow servers: what is accepted, loads and answers, and how soon a bad server is found."""

import contextlib
import shutil
import socket
import time

import boto3
import mlflow
import pytest
from tests.delivery.registered import NAME, QUESTION, register_run
from tests.platform.registering import SCORE, compete
from tests.platform.servers import KEYS, mlflow_server, s3_server

from qwenops.errors import PlatformError
from qwenops.platform.mlflow import registry, tracking
from qwenops.platform.mlflow import server as patience
from qwenops.platform.mlflow.tracking import MlflowClient


@contextlib.contextmanager
def _server(kind, database, folder):
    uri = f"sqlite:///{shutil.copy(database, folder / 'server.db')}"
    if kind != "s3":
        with mlflow_server(uri, str(folder / "artifacts"), serve=kind == "passed through") as address:
            yield address
        return
    with s3_server() as endpoint, pytest.MonkeyPatch.context() as patch:
        for name, value in (KEYS | {"MLFLOW_S3_ENDPOINT_URL": endpoint}).items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="mlflow")
        with mlflow_server(uri, "s3://mlflow/artifacts") as address:
            yield address


@pytest.fixture(scope="module")
def path_server(empty_database, tmp_path_factory):
    with _server("passed through", empty_database, tmp_path_factory.mktemp("server")) as address:
        yield address


def _registers_loads_and_answers(tmp_path, model, address, patch):
    run_id = tracking.open_run(address, str(tmp_path), "night", "tiny", "ab" * 32, {"seed": 7})
    registry.check_registry(address, run_id)
    _, record = register_run(tmp_path, "first", model, address)
    _, worse = register_run(tmp_path, "worse", model, address, {SCORE: 0.8})
    assert (record["alias"], worse["alias"]) == ("champion", "candidate")
    patch.setenv("MLFLOW_TRACKING_URI", address)
    (answer,) = mlflow.pyfunc.load_model(f"models:/{NAME}@champion").predict(QUESTION)
    assert answer["choices"][0]["message"]["role"] == "assistant"
    pipeline = mlflow.transformers.load_model(f"models:/{NAME}@champion")
    (said,) = pipeline(QUESTION["messages"], max_new_tokens=4, do_sample=False)
    assert said["generated_text"][-1]["role"] == "assistant"
    assert [m.name for m in MlflowClient(address).search_registered_models()] == [NAME]


def test_model_registered_on_a_server_with_artifacts_on_a_path_loads_and_answers(
    path_server,
    tmp_path,
    model,
    monkeypatch,
):
    _registers_loads_and_answers(tmp_path, model, path_server, monkeypatch)
    source = MlflowClient(path_server).get_model_version_by_alias(NAME, "champion").source
    assert source.startswith("mlflow-artifacts:")


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["written by clients", "s3"])
def test_model_registered_on_other_servers_loads_and_answers(
    kind,
    empty_database,
    tmp_path,
    model,
    monkeypatch,
):
    with _server(kind, empty_database, tmp_path) as address:
        _registers_loads_and_answers(tmp_path, model, address, monkeypatch)


@pytest.mark.integration
def test_fifty_times_two_registrations_at_once_on_a_server_the_better_one_is_champion(path_server):
    trials = [{f"trial-{number}": scores} for number, scores in enumerate([(0.5, 0.6), (0.6, 0.5)] * 25)]
    aliases = compete(path_server, trials, 2)
    champions = {name: registry.champion(path_server, name).figures[SCORE] for trial in trials for name in trial}
    assert {name: aliases[name] for name, score in champions.items() if score < 0.6} == {}


def test_check_of_a_server_leaves_nothing_active_behind(path_server):
    client = MlflowClient(path_server)
    before = {experiment.experiment_id for experiment in client.search_experiments()}
    runs = {run.info.run_id for run in client.search_runs(list(before))}
    registry.check_registry(path_server)
    after = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert {run.info.run_id for run in after} == runs
    assert not [m.name for m in client.search_registered_models() if m.name.startswith("qwenops-check")]


@pytest.mark.parametrize("does", ["refuse connections", "accept and say nothing"])
def test_dead_server_is_found_in_seconds(does, monkeypatch):
    monkeypatch.setattr(patience, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(patience, "_PAUSE_SECONDS", 0.1)
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        if does != "refuse connections":
            dead.listen(16)
        address = f"http://127.0.0.1:{dead.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(PlatformError, match="does not answer"):
            tracking.open_run(address, "", "night", "tiny", "ab" * 32, {})
        with pytest.raises(PlatformError, match="does not answer"):
            registry.check_registry(address)
        assert time.monotonic() - began < 60


@pytest.mark.integration
def test_server_whose_artifacts_cannot_be_written_is_found_by_the_check(empty_database, tmp_path, monkeypatch):
    (tmp_path / "artifacts").write_text("a file where a folder should be")
    with _server("passed through", empty_database, tmp_path) as address:
        began = time.monotonic()
        with pytest.raises(PlatformError, match="model registry cannot be used"):
            registry.check_registry(address)
        assert time.monotonic() - began < 60
        assert MlflowClient(address).search_registered_models() == []
