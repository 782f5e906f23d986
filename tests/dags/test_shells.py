"""A run in a shell that holds anything: dead addresses, no home, long and odd paths, a recipe of many sources."""

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.dags.conftest import qwenops
from tests.platform.servers import free_port, wait_for

from qwenops.recipe.codec import canonical
from qwenops_pipelines.placements import by_name
from qwenops_pipelines.recipes import load_recipe
from qwenops_pipelines.user_folders import cache_folder, data_folder, sqlite_address, tracking_address

# As long as the socket of Ray's that fails first, without its folder.
LONG = 104
ODD = "lr 5%25 what?x=1 #ü"


@pytest.fixture
def many(tmp_path):
    """A file with the recipe of 900 folders, of about 170 kB."""
    sources = []
    for number in range(900):
        folder = tmp_path / "data" / f"{number:060d}"
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text(f"Page {number} tells of the river and of the mill beside it.\n" * 20)
        sources.append({"kind": "folder", "name": f"source-{number}", "path": str(folder)})
    plain = json.loads(canonical(load_recipe("smoke", [])))
    plain["collect"]["sources"] = sources
    path = tmp_path / "many.json"
    path.write_text(json.dumps(plain, indent=1))
    assert path.stat().st_size > 150_000
    return path


@pytest.fixture
def long_folder(tmp_path):
    """A folder whose path has 104 characters, or more where pytest's own is as long."""
    folder = tmp_path / ("x" * max(1, LONG - 1 - len(str(tmp_path))))
    folder.mkdir()
    assert len(str(folder)) >= LONG
    return folder


@pytest.mark.integration
def test_run_of_many_sources_succeeds_in_a_shell_that_holds_anything(tmp_path, many, long_folder):
    out = tmp_path / "runs" / ODD
    database = sqlite_address(tmp_path / "mine.db")
    client = MlflowClient(database)
    experiment = client.create_experiment("mine", artifact_location=(tmp_path / "files").as_uri())
    mine = client.create_run(experiment, run_name="open").info.run_id
    client.log_param(mine, "seed", "mine")
    shell = {"RAY_ADDRESS": "127.0.0.1:6379", "HOME": "", "TMPDIR": str(long_folder), "MLFLOW_RUN_ID": mine}
    shell |= {"MLFLOW_TRACKING_URI": database, "QWENOPS_CACHE": str(tmp_path / "cache")}
    result = qwenops("run", many, "--out", out, "--until", "ingest", **shell)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [ODD]
    assert json.loads((out / "run.json").read_text())["stages"]["collect"]["metrics"]
    nested = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{mine}'")
    assert sorted(run.info.run_name for run in nested) == ["collect", "ingest"]
    assert client.get_run(mine).info.status == "RUNNING"
    assert client.get_run(mine).data.params["seed"] == "mine"
    assert client.get_run(mine).data.metrics["ingest/seconds"] > 0


@pytest.mark.integration
@pytest.mark.parametrize(
    "shell", [{"MLFLOW_RUN_ID": "gone"}, {"HOME": "/nonexistent", "TMPDIR": ""}, {"TMPDIR": "/no"}]
)
def test_run_succeeds_though_its_shell_names_what_is_gone(tmp_path, shell):
    out = tmp_path / "runs" / ODD
    shell |= {"XDG_DATA_HOME": str(tmp_path / "data" / ODD)}
    result = qwenops("run", "smoke", "--out", out, "--until", "collect", QWENOPS_CACHE=str(tmp_path / "cache"), **shell)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert (tmp_path / "data" / ODD / "qwenops" / "mlflow.db").is_file()
    assert not [path.name for path in out.iterdir() if "ml" in path.name and path.name != "report.html"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [ODD]


@pytest.mark.parametrize("home", [None, "", "/nonexistent/home"])
def test_cache_lies_in_a_home_that_is_one(monkeypatch, tmp_path, home):
    monkeypatch.delenv("QWENOPS_CACHE", raising=False)
    monkeypatch.delenv("HOME") if home is None else monkeypatch.setenv("HOME", home)
    place = cache_folder(tmp_path)
    account = Path(os.path.expanduser("~root")) if os.getuid() == 0 else None
    assert place in ((account / ".cache" / "qwenops") if account else place, tmp_path / "cache")


@pytest.mark.parametrize("name", [ODD, "a:b@c", "a+b&c=d", "%2F%00", "日本語"])
def test_mlflow_finds_the_database_where_it_is_meant_to_lie(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    MlflowClient(sqlite_address(folder / "mlflow.db")).search_experiments()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (folder / "mlflow.db").is_file()


@pytest.mark.parametrize(
    ("data", "home", "place"),
    [
        ("{tmp}/data", "{tmp}", "{tmp}/data/qwenops"),
        ("", "{tmp}", "{tmp}/.local/share/qwenops"),
        # The specification has a relative path ignored.
        ("data", "{tmp}", "{tmp}/.local/share/qwenops"),
    ],
)
def test_runs_of_a_user_have_one_store(monkeypatch, tmp_path, data, home, place):
    monkeypatch.setenv("XDG_DATA_HOME", data.format(tmp=tmp_path))
    monkeypatch.setenv("HOME", home.format(tmp=tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    expected = Path(place.format(tmp=tmp_path))
    assert {data_folder(tmp_path / "a"), data_folder(tmp_path / "b")} == {expected}
    assert tracking_address(tmp_path / "a") == sqlite_address(expected / "mlflow.db")


def test_store_lies_in_the_runs_folder_where_there_is_no_home(monkeypatch, tmp_path):
    def unknown(number):
        raise KeyError(number)

    for name in ("XDG_DATA_HOME", "HOME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert data_folder(tmp_path) == tmp_path


def test_address_of_the_shell_wins_over_the_placements_and_that_over_the_users(monkeypatch, tmp_path):
    placement = by_name("laptop").model_copy(update={"tracking_uri": "http://mlflow:5000"})
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_address(tmp_path, placement) == "http://mlflow:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////mine.db")
    assert tracking_address(tmp_path, placement) == "sqlite:////mine.db"


@pytest.mark.integration
def test_pages_show_the_store_that_a_run_would_use(monkeypatch, tmp_path):
    port, data = free_port(), tmp_path / "data"
    shell = {**os.environ, "XDG_DATA_HOME": str(data), "MLFLOW_TRACKING_URI": ""}
    command = [sys.executable, "-m", "qwenops_pipelines.cli", "ui", "--port", str(port)]
    process = subprocess.Popen(command, env=shell, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        client = MlflowClient(f"http://127.0.0.1:{port}")
        experiment = client.create_experiment("seen")
    finally:
        process.terminate()
        process.wait()
    seen = MlflowClient(sqlite_address(data / "qwenops" / "mlflow.db")).get_experiment_by_name("seen")
    assert seen.experiment_id == experiment
    assert seen.artifact_location.startswith(str(data / "qwenops" / "mlartifacts"))
