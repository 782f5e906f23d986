"""The cluster's pipelines, exit handler and all, through KFP's local runner; every stage finds its work done."""

import json
from pathlib import Path

import pytest
from kfp import local
from tests.dags.artifacts import TEXT, publish

from qwenops.recipe.placement import Placement
from qwenops_pipelines.dags.build import build
from qwenops_pipelines.dags.nodes import NODES
from qwenops_pipelines.dags.pipelines import PIPELINES
from qwenops_pipelines.recipes import load_recipe

# The local runner says of every setting for a cluster that it has no effect here.
pytestmark = pytest.mark.filterwarnings("ignore:Task :UserWarning")


@pytest.fixture
def finished(store):
    """The store of an earlier run, with an artifact of every node; node name to folder."""
    made = {}
    for node in NODES:
        made[node.name] = publish(store, node.name, made, files=FILES.get(node.name, {}))
    return made


FILES = {
    "register": {
        "register.json": json.dumps({"passed": False, "reasons": ["pass rate fell"], "mlflow_uri": "", "alias": None})
    },
    "safety": {"confusion.json": json.dumps({"categories": ["a", "b"], "counts": [[1, 0], [0, 2]]})},
    "report": {"report.html": "<!doctype html><p>earlier</p>"},
    "pretrain": {
        "curves.jsonl": '{"name": "loss", "step": 1, "value": 2.0}\n{"name": "loss", "step": 2, "value": 1.0}\n'
    },
}


def run(store, tmp_path, pipeline, fuse=(), **form):
    """Run one pipeline of the cluster on this machine; returns the folder that its last step published."""
    placement = Placement(name="here", image="python", artifact_root=str(store), fuse=fuse)
    runner = local.SubprocessRunner(use_venv=False)
    local.init(runner=runner, pipeline_root=str(tmp_path / "kfp"), raise_on_error=True, enable_caching=False)
    build(load_recipe("smoke", []), placement, PIPELINES[pipeline])(run_name="night", **form)
    return store.parent / "runs" / "run-1"


def outputs(tmp_path, task, name):
    (path,) = (tmp_path / "kfp").glob(f"*/{task}/{name}")
    return path.read_text()


def test_pretraining_starts_from_an_earlier_run_and_publishes_what_it_did(store, finished, tmp_path, monkeypatch):
    monkeypatch.setenv("QWENOPS_EVENTS", str(store / "events"))
    folder = run(store, tmp_path, "pretraining")
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "succeeded"
    assert {name: stage["status"] for name, stage in record["stages"].items()} == dict.fromkeys(
        ("pretrain", "extend", "upcycle"), "skipped"
    )
    assert record["stages"]["pretrain"]["outputs"]["output"]["path"] == str(finished["pretrain"])
    assert (folder / "report.html").read_text() == outputs(tmp_path, "finish-run", "page")
    assert "<svg" in outputs(tmp_path, "pretrain", "page")
    assert outputs(tmp_path, "extend", "summary").startswith("# extend")
    assert (folder / "recipe.json").read_text() == TEXT


def test_fused_nodes_have_each_their_outputs_and_their_record(store, finished, tmp_path, monkeypatch):
    monkeypatch.setenv("QWENOPS_EVENTS", str(store / "events"))
    folder = run(store, tmp_path, "pretraining", fuse=(("pretrain", "extend", "upcycle"),))
    record = json.loads((folder / "run.json").read_text())
    assert {name: stage["status"] for name, stage in record["stages"].items()} == dict.fromkeys(
        ("pretrain", "extend", "upcycle"), "skipped"
    )
    for name in ("pretrain", "extend", "upcycle"):
        written = json.loads(outputs(tmp_path, "pretrain-to-upcycle", name))
        assert written["address"] == str(finished[name])
        assert outputs(tmp_path, "pretrain-to-upcycle", f"{name}_summary").startswith(f"# {name}")
    assert "<svg" in outputs(tmp_path, "pretrain-to-upcycle", "pretrain_page")


@pytest.mark.parametrize("choice", ["report", "fail"])
def test_failed_gate_ends_an_evaluation_as_asked_and_the_run_is_published(
    store, finished, tmp_path, monkeypatch, choice
):
    monkeypatch.setenv("QWENOPS_EVENTS", str(store / "events"))
    if choice == "fail":
        with pytest.raises(RuntimeError):
            run(store, tmp_path, "evaluation", failed_gate=choice)
    else:
        run(store, tmp_path, "evaluation", failed_gate=choice)
    record = json.loads((store.parent / "runs" / "run-1" / "run.json").read_text())
    assert record["status"] == {"report": "succeeded", "fail": "failed"}[choice]
    assert record["model"]["gate"] == {"passed": False, "reasons": ["pass rate fell"]}
    assert "pass rate fell" in Path(next((tmp_path / "kfp").glob("*/finish-run/summary"))).read_text()


def test_wrong_recipe_text_fails_the_first_step_and_is_published(store, tmp_path, monkeypatch):
    monkeypatch.setenv("QWENOPS_EVENTS", str(store / "events"))
    with pytest.raises(RuntimeError):
        run(store, tmp_path, "data", recipe_text=TEXT.replace('"seed"', '"sead"'))
    assert "bad value at seed" in outputs(tmp_path, "finish-run", "summary")
