import getpass
import json
import math
import os
import pwd
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from git import Repo

from qwenops.contracts.manifest import Manifest, digest_files, read_manifest, write_manifest
from qwenops.errors import PlatformError
from qwenops.platform.context import RunContext
from qwenops.platform.mlflow import facts, tracking
from qwenops.platform.mlflow.tracking import MlflowClient, close_run, flatten, log_stage, open_run

ROOT = Path(__file__).parents[2]


def _publish(root: Path, node: str, *, inputs: dict[str, Path] | None = None, checkpoint: str = "", points: int = 3):
    folder = root / node
    folder.mkdir(parents=True)
    (folder / "summary.md").write_text("# summary")
    (folder / "gate").mkdir()
    (folder / "gate" / "documents.html").write_text("<html></html>")
    with (folder / "curves.jsonl").open("w") as stream:
        for step in range(points):
            stream.write(json.dumps({"name": "loss.main", "step": step, "value": 1 / (step + 1)}) + "\n")
    if checkpoint:
        for name in ("config.json", "model.safetensors", "checkpoint.json"):
            (folder / name).write_text("{}")
    inputs = inputs or {}
    manifest = Manifest(
        node=node,
        fingerprint="f" * 64,
        artifact_id=f"{node}-id",
        files=digest_files(folder),
        records=5,
        parents={name: read_manifest(path).artifact_id for name, path in inputs.items()},
        counts={},
        metrics={"loss.final": 2.5, "bits_per_byte.zh": 1.1},
        warnings=("look",),
        seconds=1.5,
        config={"training": {"steps": 3, "learning_rate": 0.001}, "kinds": ["a", "b"]},
        code_version="0.1.0+abc",
        created_at="2026-01-01T00:00:00+00:00",
        inputs={name: str(path) for name, path in inputs.items()},
    )
    write_manifest(folder, manifest)
    return folder, manifest


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def run_id(uri, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    return open_run(uri, str(tmp_path / "artifacts"), "a run", "tiny", "ab" * 32, {"pretrain": {"steps": 3}})


def _context(uri: str, run_id: str) -> RunContext:
    return RunContext(store="", events="", cache="", tracking_uri=uri, parent_run_id=run_id)


def _children(uri: str, run_id: str):
    client = MlflowClient(uri)
    experiment = client.get_run(run_id).info.experiment_id
    return client.search_runs([experiment], filter_string=f"tags.mlflow.parentRunId = '{run_id}'")


def test_stage_becomes_a_nested_run_with_params_metrics_curves_data_and_files(uri, run_id, tmp_path):
    tokens, tokens_manifest = _publish(tmp_path, "tokens")
    folder, manifest = _publish(tmp_path, "pretrain", inputs={"tokens": tokens}, points=2000)
    log_stage(_context(uri, run_id), manifest, folder)
    (run,) = _children(uri, run_id)
    client = MlflowClient(uri)
    assert (run.info.run_name, run.info.status) == ("pretrain", "FINISHED")
    assert run.data.params["training.learning_rate"] == "0.001"
    assert run.data.metrics["loss.final"] == 2.5
    assert len(client.get_metric_history(run.info.run_id, "curve/loss.main")) == 2000
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "tokens"
    assert tokens_manifest.digest.startswith(dataset.dataset.digest)
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"summary.md", "gate", "curves.jsonl"}


def test_kept_checkpoint_becomes_a_logged_model_that_a_later_evaluation_points_at(uri, run_id, tmp_path):
    folder, manifest = _publish(tmp_path, "extend", checkpoint="yes")
    log_stage(_context(uri, run_id), manifest, folder)
    evaluation, evaluation_manifest = _publish(tmp_path, "long_context", inputs={"checkpoint": folder})
    log_stage(_context(uri, run_id), evaluation_manifest, evaluation)
    runs = {run.info.run_name: run for run in _children(uri, run_id)}
    client = MlflowClient(uri)
    made = client.get_run(runs["extend"].info.run_id).outputs.model_outputs
    used = client.get_run(runs["long_context"].info.run_id).inputs.model_inputs
    assert [m.model_id for m in made] == [m.model_id for m in used]
    model = client.get_logged_model(made[0].model_id)
    assert (model.name, model.tags["path"], model.tags["digest"]) == ("extend", str(folder), manifest.digest)
    assert {metric.run_id for metric in model.metrics} == {run.info.run_id for run in runs.values()}


def test_injected_run_is_logged_into_and_left_open(uri, run_id, tmp_path, monkeypatch):
    client = MlflowClient(uri)
    injected = client.create_run(client.get_run(run_id).info.experiment_id, run_name="task").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", injected)
    folder, manifest = _publish(tmp_path, "dedup")
    log_stage(_context(uri, run_id), manifest, folder)
    assert client.get_run(injected).data.metrics["loss.final"] == 2.5
    assert client.get_run(injected).info.status == "RUNNING"
    assert _children(uri, run_id) == []


def test_closed_run_holds_every_stage_figure_and_the_record(uri, run_id, tmp_path):
    (tmp_path / "report.html").write_text("<html></html>")
    record = {
        "status": "succeeded",
        "seconds": 9.0,
        "overhead_seconds": 1.0,
        "stages": {"dpo": {"seconds": 3.0, "metrics": {"pass_rate": 0.5}}},
        "model": {"gate": {"passed": True}},
    }
    close_run(_context(uri, run_id), "FINISHED", record, tmp_path, {})
    run = MlflowClient(uri).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"dpo/pass_rate": 0.5, "dpo/seconds": 3.0, "seconds": 9.0, "overhead_seconds": 1.0}
    assert run.data.tags["qwenops.gate"] == "passed"
    names = {item.path for item in MlflowClient(uri).list_artifacts(run_id)}
    assert names == {"report.html", "run.json", "recipe.json"}


def test_run_says_whose_it_is_of_which_commit_on_what_and_from_which_recipe_and_data(uri, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    run_id = open_run(uri, str(tmp_path), "a run", "tiny", "ab" * 32, {"seed": 3}, facts.hardware_tags())
    tokens, manifest = _publish(tmp_path, "tokens")
    stages = {"tokens": {"outputs": {"output": {"path": str(tokens)}}}}
    close_run(_context(uri, run_id), "FINISHED", {"stages": stages}, tmp_path, {"tokens": tokens}, ["tokens"])
    run = MlflowClient(uri).get_run(run_id)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.data.tags["mlflow.source.git.commit"] == head.stdout.strip()
    assert run.data.tags["mlflow.user"] == getpass.getuser()
    assert run.data.tags["qwenops.recipe"] == "tiny" and run.data.tags["qwenops.fingerprint"] == "ab" * 32
    assert int(run.data.tags["qwenops.hardware.cores"]) == len(os.sched_getaffinity(0))
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, [tag.value for tag in dataset.tags]) == ("tokens", ["tokens"])
    assert manifest.digest.startswith(dataset.dataset.digest)
    recipe = MlflowClient(uri).download_artifacts(run_id, "recipe.json", str(tmp_path))
    assert json.loads(Path(recipe).read_text()) == {"seed": 3}


@pytest.mark.parametrize("tracked", [True, False])
def test_commit_is_that_of_the_packages_own_repository(tmp_path, monkeypatch, tracked):
    package = tmp_path / "site-packages" / "qwenops"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (tmp_path / "other.py").write_text("")
    repository = Repo.init(tmp_path)
    repository.create_remote("origin", "https://somebody:word@example.org/x.git")  # pragma: allowlist secret
    repository.index.add([str(package / "__init__.py" if tracked else tmp_path / "other.py")])
    commit = repository.index.commit("one")
    monkeypatch.setattr(facts.qwenops, "__file__", str(package / "__init__.py"))
    tags = facts.source_tags()
    assert tags.get("mlflow.source.git.commit") == (commit.hexsha if tracked else None)
    assert tags.get("mlflow.source.git.repoURL") == ("https://example.org/x.git" if tracked else None)


def test_account_without_a_name_and_a_machine_without_git_cost_a_run_nothing(monkeypatch):
    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setenv("PATH", "/nowhere")
    tags = facts.source_tags()
    assert tags["mlflow.user"] == str(os.getuid())
    assert not [name for name in tags if "git" in name]


def test_curve_point_that_is_no_number_never_reaches_mlflow(uri, run_id, tmp_path):
    folder, manifest = _publish(tmp_path, "dpo")
    with (folder / "curves.jsonl").open("a") as stream:
        stream.write('{"name": "loss.main", "step": 3, "value": NaN}\n')
    log_stage(_context(uri, run_id), replace(manifest, metrics={"loss.final": math.inf}), folder)
    (run,) = _children(uri, run_id)
    assert "loss.final" not in run.data.metrics
    assert len(MlflowClient(uri).get_metric_history(run.info.run_id, "curve/loss.main")) == 3


def test_refused_record_costs_a_finished_stage_only_a_warning(uri, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    folder, manifest = _publish(tmp_path, "quality")
    log_stage(_context(uri, "no-such-run"), manifest, folder)
    assert "[quality] warning" in capsys.readouterr().out


def test_unusable_store_stops_a_run_before_it_starts(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PlatformError, match="MLflow"):
        open_run(f"sqlite:///{tmp_path}/file/mlflow.db", str(tmp_path), "r", "tiny", "f", {})


def test_stage_record_is_quick(uri, run_id, tmp_path):
    folder, manifest = _publish(tmp_path, "sft", checkpoint="yes", points=800)
    # CPU time, because other work may share the cores; measured 0.15 s on an idle one.
    began = time.process_time()
    log_stage(_context(uri, run_id), manifest, folder)
    assert time.process_time() - began < 1.5


def test_flatten_joins_keys_and_keeps_lists_as_text():
    assert flatten({"a": {"b": 1, "c": [1, 2]}, "d": "x"}) == {"a.b": "1", "a.c": "[1, 2]", "d": "x"}


def test_importing_tracking_turns_telemetry_off():
    assert tracking.os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
