"""A tracking store that is gone, or goes while a run goes on, costs seconds; what it missed is made up for."""

import contextlib
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator

import psutil
import pytest
from tests.platform.servers import mlflow_server
from tests.platform.test_tracking import _children, _publish

from qwenops.errors import PlatformError
from qwenops.platform.context import RunContext
from qwenops.platform.mlflow import outage, registry, server
from qwenops.platform.mlflow.tracking import MlflowClient, close_run, log_stage, open_run


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with mlflow_server(f"sqlite:///{folder}/mlflow.db", str(folder / "artifacts")) as uri:
        yield uri


@pytest.fixture(autouse=True)
def shell(monkeypatch):
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)


def _context(tmp_path, uri: str, run_id: str) -> RunContext:
    (tmp_path / "events").mkdir()
    events = str(tmp_path / "events")
    return RunContext(store=str(tmp_path), events=events, cache="", tracking_uri=uri, parent_run_id=run_id)


def _dead(does: str) -> tuple[socket.socket, str]:
    dead = socket.socket()
    dead.bind(("127.0.0.1", 0))
    if does == "hang":
        dead.listen(64)
    return dead, f"http://127.0.0.1:{dead.getsockname()[1]}"


def _callers(dead: socket.socket) -> Iterator[socket.socket]:
    """The connections that were made to a server that says nothing."""
    dead.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            yield dead.accept()[0]


@pytest.mark.parametrize("does", ["refuse", "hang"])
def test_server_that_is_gone_is_waited_for_once_and_its_figures_are_named(does, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(server, "ANSWER_SECONDS", 1)
    dead, uri = _dead(does)
    with dead:
        context = _context(tmp_path, uri, "a run")
        artifacts = {}
        began = time.monotonic()
        for node in ("sft", "dpo", "online"):
            artifacts[node], manifest = _publish(tmp_path, node)
            log_stage(context, manifest, artifacts[node])
        close_run(context, "FINISHED", {"stages": {}}, tmp_path, artifacts)
        # Once while stages ran, and once more at the end; MLflow alone tries for minutes each time.
        assert time.monotonic() - began < 30
        assert does == "refuse" or len(list(_callers(dead))) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    for node, line in zip(artifacts, lines, strict=False):
        assert f"[{node}] warning: MLflow has no full record" in line and str(artifacts[node] / "manifest.json") in line
    assert str(tmp_path / "run.json") in lines[-1]


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql+psycopg2://127.0.0.1:9/mlflow",
        "sqlite:////proc/none/mlflow.db",
        "sqlite+pysqlite:////proc/none/m.db",
    ],
)
def test_database_that_is_gone_is_found_in_seconds(uri):
    began = time.monotonic()
    with pytest.raises(PlatformError, match="does not answer"):
        open_run(uri, "", "night", "tiny", "ab" * 32, {})
    with pytest.raises(PlatformError, match="does not answer"):
        registry.champion(uri, "chat")
    # MLflow tries to connect for a minute and a half.
    assert time.monotonic() - began < 60


def _program(port: int) -> int:
    """Process group of the server on `port`."""
    servers = [p for p in psutil.Process().children() if str(port) in p.cmdline()]
    return os.getpgid(servers[0].pid)


def test_stage_that_a_sleeping_server_missed_is_recorded_at_the_end_of_the_run(address, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(server, "ANSWER_SECONDS", 1)
    run_id = open_run(address, "", "night", "tiny", "ab" * 32, {})
    context, artifacts, group = _context(tmp_path, address, run_id), {}, _program(int(address.rpartition(":")[2]))
    for node in ("sft", "dpo", "online"):
        artifacts[node], manifest = _publish(tmp_path, node)
        if node == "dpo":
            os.killpg(group, signal.SIGSTOP)
        began = time.monotonic()
        try:
            log_stage(context, manifest, artifacts[node])
        finally:
            os.killpg(group, signal.SIGCONT)
        assert time.monotonic() - began < 60
    # The third did not ask: the server had been silent a moment ago.
    assert {run.info.run_name for run in _children(address, run_id)} == {"sft"}
    close_run(context, "FINISHED", {"stages": {}}, tmp_path, artifacts)
    children = {run.info.run_name: run.info.status for run in _children(address, run_id)}
    assert children == dict.fromkeys(("sft", "dpo", "online"), "FINISHED")
    assert MlflowClient(address).get_run(run_id).info.status == "FINISHED"
    assert capsys.readouterr().out.count("warning") == 2
    assert not list((tmp_path / "events").glob("*.unrecorded"))


def test_silence_is_forgotten_after_a_while_and_by_another_run(address, tmp_path, monkeypatch):
    context = _context(tmp_path, address, "another run")
    (tmp_path / "events" / "mlflow.silent").write_text(f'["a run", {time.time()}]')
    assert outage.record_or_warn(context, "sft", "nothing", lambda client: None)
    (tmp_path / "events" / "mlflow.silent").write_text(f'["another run", {time.time()}]')
    assert not outage.record_or_warn(context, "sft", "nothing", lambda client: None)
    monkeypatch.setattr(outage, "_ASK_AGAIN_SECONDS", 0.0)
    assert outage.record_or_warn(context, "sft", "nothing", lambda client: None)


def _first_run(uri: str, place: int, barrier, answers) -> None:
    """Everything that a run makes on its way: experiment, runs, figures, a registered model, its version and alias."""
    os.environ.pop("MLFLOW_RUN_ID", None)
    try:
        for experiment in ("first", "second"):
            os.environ["MLFLOW_EXPERIMENT_NAME"] = experiment
            barrier.wait()
            run_id = open_run(uri, "", f"run {place}", "tiny", "ab" * 32, {"seed": place})
            client = MlflowClient(uri)
            for step in range(5):
                client.log_metric(run_id, "loss", 1 / (step + 1), step=step)
            with registry.registration_turn(
                uri, experiment, "s3://models/chat", run_id=run_id, figures={}, tags={}
            ) as turn:
                turn.settle(passed=True, description="")
            client.set_terminated(run_id)
        answers.put("")
    except Exception as error:  # noqa: BLE001 - the test looks at it
        barrier.abort()
        answers.put(f"{type(error).__name__}: {error}")


@pytest.mark.parametrize("kind", ["file", "server"])
def test_four_first_runs_at_once_share_one_store(kind, request, tmp_path):
    uri = f"sqlite:///{tmp_path}/data/mlflow.db" if kind == "file" else request.getfixturevalue("address")
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(4), context.Queue()
    workers = [context.Process(target=_first_run, args=(uri, place, barrier, answers)) for place in range(4)]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=1200) for _ in workers]
    for worker in workers:
        worker.join()
    assert found == [""] * 4
    client = MlflowClient(uri)
    for name in ("first", "second"):
        experiment = client.get_experiment_by_name(name)
        runs = client.search_runs([experiment.experiment_id])
        assert sorted(run.info.run_name for run in runs) == [f"run {place}" for place in range(4)]
        assert all(len(client.get_metric_history(run.info.run_id, "loss")) == 5 for run in runs)
        assert {int(version.version) for version in client.search_model_versions(f"name = '{name}'")} == {1, 2, 3, 4}
        assert int(client.get_model_version_by_alias(name, "champion").version) == 4
