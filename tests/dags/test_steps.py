"""The steps around the stages: cache keys, earlier artifacts, the gate, the end of a run."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from kfp import dsl
from mlflow import MlflowClient
from tests.dags.artifacts import BY_NAME, RECIPE, TEXT, publish

from qwenops.contracts.manifest import read_manifest
from qwenops.errors import ContractError, RecipeError
from qwenops.platform.context import OPENED, RunContext
from qwenops.platform.launch.kfp_artifacts import address_of
from qwenops.platform.stage.events import Events
from qwenops.platform.stage.slices import Reference, read_slice
from qwenops.recipe.account import account_text
from qwenops.recipe.codec import canonical, decode
from qwenops.recipe.placement import Placement, Resources
from qwenops.recipe.prices import Prices
from qwenops.recipe.schema import read_recipe, resolve
from qwenops_pipelines.dags.pipelines import PIPELINES
from qwenops_pipelines.recipes import load_recipe
from qwenops_pipelines.steps.begin import begin
from qwenops_pipelines.steps.finish import finish
from qwenops_pipelines.steps.gate import enforce_gate
from qwenops_pipelines.steps.import_artifacts import find_artifacts, import_artifacts


def cache_keys(pipeline="full"):
    begun = begin(TEXT, "night", pipeline, "")
    return {name: decode(Reference, begun[name]).cache_key for name in BY_NAME}


def test_cache_keys_are_stable_and_change_with_the_store_and_a_lost_artifact(store, monkeypatch, tmp_path):
    folder = publish(store, "collect")
    first = cache_keys()
    assert cache_keys() == first
    (folder / "manifest.json").unlink()
    lost = cache_keys()
    assert {name for name in first if lost[name] != first[name]} == {"collect"}
    monkeypatch.setenv("QWENOPS_RUN_ID", "run-2")
    assert cache_keys()["collect"] != lost["collect"]
    monkeypatch.setenv("QWENOPS_STORE", str(tmp_path / "other"))
    assert not set(cache_keys().values()) & set(first.values())


def test_stage_gets_its_slice_by_a_reference_that_stays_small(store):
    sources = [{"kind": "folder", "name": f"s{n}", "path": f"/data/{n:0120d}"} for n in range(900)]
    text = canonical(load_recipe("smoke", [f"collect.sources={json.dumps(sources)}"]))
    assert len(text) > 160_000
    begun = begin(text, "night", "full", "")
    assert max(len(begun[name]) for name in BY_NAME) < 1000
    context = RunContext.from_environment()
    for name, envelope in resolve(read_recipe(text)).items():
        assert read_slice(BY_NAME[name].stage, begun[name], context) == envelope


def test_slice_whose_config_holds_digests_is_read_as_it_is(store):
    collect = resolve(load_recipe("tiny", []))["collect"]
    assert read_slice("data.collect", canonical(collect), RunContext.from_environment()) == collect


def test_changed_slice_has_another_reference_and_an_equal_one_the_same(store):
    def references(*overrides):
        begun = begin(canonical(load_recipe("smoke", list(overrides))), "night", "full", "")
        return {name: begun[name] for name in BY_NAME}

    first, second = references(), references("dpo.training.learning_rate=0.00123")
    assert references() == first
    assert [name for name in first if first[name] != second[name]] == ["dpo"]


def test_slice_that_was_changed_in_the_store_is_refused(store):
    begun = begin(TEXT, "night", "full", "")
    for path in (store / ".slices").iterdir():
        path.write_text(path.read_text().replace('"seed":7', '"seed":8'))
    with pytest.raises(ContractError, match="not what the first step put there"):
        read_slice("data.collect", begun["collect"], RunContext.from_environment())


def test_recipe_may_lie_in_a_file_or_nowhere(store, tmp_path):
    (tmp_path / "mine.json").write_text(TEXT)
    assert begin(str(tmp_path / "mine.json"), "night", "full", "") == begin(TEXT, "night", "full", "")
    with pytest.raises(RecipeError, match="the path or s3:// address"):
        begin(str(tmp_path / "yours.json"), "night", "full", "")


def test_steps_of_a_run_share_what_the_first_one_opened(store, monkeypatch, tmp_path):
    monkeypatch.setenv("QWENOPS_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    # Without a server MLflow keeps artifacts below the working folder.
    monkeypatch.chdir(tmp_path)
    begin(TEXT, "night", "full", "")
    parent = RunContext.from_environment().parent_run_id
    assert parent
    begin(TEXT, "night", "full", "")
    assert RunContext.from_environment().parent_run_id == parent
    monkeypatch.setenv("QWENOPS_RUN_ID", "run-2")
    assert RunContext.from_environment().parent_run_id == ""
    assert RunContext.from_environment(RunContext.from_environment().to_environment()).events.count("run-2") == 1


def test_base_model_is_taken_up_with_the_tokenizer_it_was_trained_with(store):
    old = publish(store, "tokenizer", created="2026-01-01T00:00:00+00:00")
    tokens = publish(store, "tokens", {"tokenizer": old})
    publish(store, "tokenizer", created="2026-02-01T00:00:00+00:00")
    found = find_artifacts(("tokenizer", "tokens"), resolve(RECIPE), RunContext.from_environment(), "")
    assert found == {"tokenizer": str(old), "tokens": str(tokens)}


def test_newest_intact_artifact_of_this_recipe_is_taken(store):
    good = publish(store, "tokenizer", created="2026-01-01T00:00:00+00:00")
    broken = publish(store, "tokenizer", created="2026-02-01T00:00:00+00:00")
    (broken / "data.txt").write_text("rotten")
    assert find_artifacts(("tokenizer",), resolve(RECIPE), RunContext.from_environment(), "") == {
        "tokenizer": str(good)
    }
    other = resolve(load_recipe("tiny", []))
    with pytest.raises(ContractError, match="no artifact of tokenizer"):
        find_artifacts(("tokenizer",), other, RunContext.from_environment(), "")


def test_run_to_start_from_is_found_by_folder_id_or_name(store, tmp_path):
    path = publish(store, "tokenizer")
    stages = {"tokenizer": {"outputs": {"output": {"path": str(path)}}}}
    record = {"run_name": "monday", "started_at": "2026-01-01", "stages": stages}
    for folder in (tmp_path / "runs" / "run-0", tmp_path / "laptop"):
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(record))
    for start_from in ("run-0", "monday", str(tmp_path / "laptop")):
        assert find_artifacts(("tokenizer",), resolve(RECIPE), RunContext.from_environment(), start_from) == {
            "tokenizer": str(path)
        }
    with pytest.raises(ContractError, match="no run to start from"):
        find_artifacts(("tokenizer",), resolve(RECIPE), RunContext.from_environment(), "tuesday")
    with pytest.raises(ContractError, match="no artifact of tokens"):
        find_artifacts(("tokens",), resolve(RECIPE), RunContext.from_environment(), "monday")


def test_taken_up_artifact_says_what_it_is_and_where(store, tmp_path):
    path = publish(store, "tokens")
    artifact = dsl.Dataset(name="tokens", uri=str(tmp_path / "tokens"), metadata={})
    import_artifacts(canonical({"places": {"tokens": str(path)}}), {"tokens": artifact})
    assert address_of(artifact.path) == str(path)
    assert artifact.metadata["digest"] == read_manifest(path).digest


@pytest.mark.parametrize(("passed", "choice", "error"), [(False, "fail", ContractError), (True, "x", RecipeError)])
def test_gate_ends_a_run_only_when_asked(store, tmp_path, passed, choice, error):
    (tmp_path / "register.json").write_text(json.dumps({"passed": passed, "reasons": ["pass rate fell"]}))
    enforce_gate(str(tmp_path), "report")
    if passed:
        enforce_gate(str(tmp_path), "fail")
    with pytest.raises(error):
        enforce_gate(str(tmp_path), choice)


def end(store, state, pipeline="data"):
    """Run the last step; returns the record and the KFP artifacts."""
    shown = {"metrics": dsl.Metrics(name="m", uri="", metadata={})}
    for name, kind in (("summary", dsl.Markdown), ("page", dsl.HTML)):
        shown[name] = kind(name=name, uri=str(store.parent / name), metadata={})
    # Kubeflow hands on no message: "TODO" in `backend/src/v2/driver/resolve.go` of its 2.17.0.
    status = SimpleNamespace(state=state, error_message=None)
    return finish(TEXT, "night", pipeline, status, **shown), shown


def test_priced_run_on_a_cluster_says_what_it_cost(store, monkeypatch):
    prices = Prices(currency="EUR", processor_hour=2.0)
    placement = Placement(name="p", image="i", prices=prices, resources={"data": Resources(cpu="4")})
    monkeypatch.setenv("QWENOPS_ACCOUNT", account_text(placement))
    begin(TEXT, "night", "data", "")
    collect = publish(store, "collect")
    events = Path(RunContext.from_environment().events)
    Events(events, "collect").write(status="succeeded", run_started=0.0, run_finished=900.0, artifact=str(collect))
    record, _ = end(store, "FAILED")
    # A quarter of an hour on four cores.
    assert record["cost"]["stages"]["collect"]["money"] == pytest.approx(2.0)
    assert "EUR" in (store.parent / "runs" / "run-1" / "report.html").read_text()


def test_failed_run_is_published_with_what_finished_and_what_was_cached(store):
    begin(TEXT, "night", "data", "")
    collect = publish(store, "collect")
    ingest = publish(store, "ingest", {"collect": collect})
    events = Path(RunContext.from_environment().events)
    assert (events / OPENED).is_file()
    Events(events, "ingest").write(status="succeeded", run_started=1.0, run_finished=3.0, artifact=str(ingest))
    error = {"family": "PlatformError", "message": "no space left", "traceback": ""}
    Events(events, "quality").write(status="failed", run_started=4.0, run_finished=5.0, error=error)
    record, shown = end(store, "FAILED")
    assert record["status"] == "failed"
    states = {name: stage["status"] for name, stage in record["stages"].items()}
    assert states == {"collect": "skipped", "ingest": "succeeded", "quality": "failed"}
    folder = store.parent / "runs" / "run-1"
    assert json.loads((folder / "run.json").read_text()) == record
    assert "no space left" in (folder / "report.html").read_text()
    assert record["error"] == {"task": "quality", "message": "no space left"}
    assert "quality failed:** no space left" in Path(shown["summary"].path).read_text()
    assert shown["metrics"].metadata == {
        "stages.succeeded": 1,
        "stages.skipped": 1,
        "stages.failed": 1,
        "seconds": pytest.approx(record["seconds"], abs=0.1),
    }


def test_wholly_cached_run_succeeds_and_closes_its_mlflow_run(store, monkeypatch, tmp_path):
    monkeypatch.setenv("QWENOPS_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    # Without a server MLflow keeps artifacts below the working folder.
    monkeypatch.chdir(tmp_path)
    begin(TEXT, "night", "data", "")
    made = {}
    for node in PIPELINES["data"].nodes:
        made[node.name] = publish(store, node.name, made)
    record, _ = end(store, "COMPLETE")
    assert record["status"] == "succeeded"
    assert {stage["status"] for stage in record["stages"].values()} == {"skipped"}
    run = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").get_run(RunContext.from_environment().parent_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["kfp.pipeline_run_id"] == "run-1"


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETE"])
def test_run_that_lacks_a_stage_is_a_failed_one_whatever_kubeflow_has_noticed(store, state):
    """A step whose pod was killed has told Kubeflow's metadata nothing."""
    begin(TEXT, "night", "data", "")
    publish(store, "collect")
    assert end(store, state)[0]["status"] == "failed"


def test_stages_beside_each_other_count_once_as_work(store):
    begin(TEXT, "night", "data", "")
    events = Path(RunContext.from_environment().events)
    opened = json.loads((events / OPENED).read_text())["began"]
    spans = {"collect": (0, 10), "ingest": (5, 12)}
    for name, (start, stop) in spans.items():
        Events(events, name).write(status="succeeded", run_started=opened + start, run_finished=opened + stop)
    record, _ = end(store, "COMPLETE")
    assert record["seconds"] - record["overhead_seconds"] == pytest.approx(12, abs=0.01)
