"""Why a run on a cluster failed, whatever killed it: in its record, its report and its summary."""

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from kfp import dsl
from tests.dags import argo_nodes
from tests.dags.artifacts import TEXT, publish
from tests.platform.conftest import kubeconfig
from tests.platform.kube_server import KubeServer

from qwenops.errors import ContractError, RecipeError
from qwenops.platform.context import RunContext
from qwenops.platform.stage.events import Events
from qwenops_pipelines.dags.pipelines import PIPELINES
from qwenops_pipelines.records import read_record, show
from qwenops_pipelines.steps.begin import begin
from qwenops_pipelines.steps.finish import finish
from qwenops_pipelines.steps.import_artifacts import import_artifacts

OOM = "main: OOMKilled (exit code 137)"


@pytest.fixture
def server(store, tmp_path, monkeypatch):
    """The API server of the cluster on which the last step of run-1 is running."""
    with contextlib.closing(KubeServer()) as server:
        for name, value in (("POD_NAME", "finish"), ("POD_NAMESPACE", "team")):
            monkeypatch.setenv(f"QWENOPS_{name}", value)
        (tmp_path / "kubeconfig").write_text(kubeconfig(server.url))
        monkeypatch.setenv("QWENOPS_KUBECONFIG", str(tmp_path / "kubeconfig"))
        owner = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "name": "run",
            "uid": "u",
            "controller": True,
        }
        server.store.put("pods", {"metadata": {"name": "finish", "namespace": "team", "ownerReferences": [owner]}})
        yield server


def end(store, steps, server=None, *, state="FAILED", recipe=TEXT, **options):
    """Run the last step after `steps`; returns the record, which is also what `run.json` holds, and the summary."""
    if server is not None:
        server.store.put("workflows", argo_nodes.workflow("run", steps | {"finish-run": "running"}, **options))
    shown = {"metrics": dsl.Metrics(name="m", uri="", metadata={})}
    for name, kind in (("summary", dsl.Markdown), ("page", dsl.HTML)):
        shown[name] = kind(name=name, uri=str(store.parent / name), metadata={})
    record = finish(recipe, "night", "data", SimpleNamespace(state=state, error_message=None), **shown)
    folder = store.parent / "runs" / "run-1"
    assert json.loads((folder / "run.json").read_text()) == json.loads(json.dumps(record))
    assert read_record(folder).status == record["status"]
    return record, (store.parent / "summary").read_text()


def ran(store, *nodes):
    """The run has begun and made these nodes' artifacts."""
    begin(TEXT, "night", "data", "")
    made = {}
    for node in nodes:
        made[node] = publish(store, node, made)


@pytest.mark.parametrize(
    ("steps", "options", "message"),
    [
        ({"ingest": ("failed", OOM)}, {}, OOM),
        ({"ingest": ("failed", OOM)}, {"attempts": 2, "compressed": True}, OOM),
        ({"ingest": ("failed", "pod deleted")}, {}, "pod deleted"),
        ({"ingest": ("driver", "failed to resolve inputs")}, {}, "failed to resolve inputs"),
        ({"ingest": ("failed", "Step exceeded its deadline")}, {"terminated": True}, "the run was terminated"),
        ({"ingest": "failed"}, {}, "without saying why"),
    ],
)
def test_step_that_was_killed_is_named_with_what_killed_it(store, server, steps, options, message):
    ran(store, "collect")
    Events(Path(RunContext.from_environment().events), "ingest").write(status="running", started=1.0)
    record, summary = end(store, {"collect": "succeeded", **steps}, server, **options)
    assert record["status"] == "failed"
    assert record["error"]["task"] == "ingest"
    assert message in record["error"]["message"]
    assert message.removeprefix("the run was terminated") in record["stages"]["ingest"]["error"]["message"]
    assert record["stages"]["ingest"]["status"] == "failed"
    assert "ingest failed:**" in summary
    assert "ingest failed" in (store.parent / "runs" / "run-1" / "report.html").read_text()


def test_killed_step_of_several_stages_names_the_one_that_was_running(store, server):
    ran(store, "collect")
    events = Path(RunContext.from_environment().events)
    Events(events, "ingest").write(status="succeeded", run_started=1.0, run_finished=2.0)
    Events(events, "quality").write(status="running", started=2.0)
    record, _ = end(store, {"collect-to-tokens": ("failed", OOM)}, server)
    assert record["error"]["task"] == "quality"
    assert OOM in record["stages"]["quality"]["error"]["message"]


def test_step_of_several_stages_that_never_began_keeps_its_name(store, server):
    ran(store)
    record, _ = end(store, {"collect-to-tokens": ("driver", "no such image")}, server)
    assert record["error"] == {"task": "collect-to-tokens", "message": "no such image"}


def test_step_that_said_why_keeps_its_own_words(store, server, capsys):
    ran(store, "collect")
    error = {"family": "ContractError", "message": "no documents", "traceback": ""}
    Events(Path(RunContext.from_environment().events), "ingest").write(status="failed", finished=2.0, error=error)
    record, _ = end(store, {"collect": "cached", "ingest": ("failed", "main: Error (exit code 3)")}, server)
    assert record["error"] == {"task": "ingest", "message": "no documents"}
    show(read_record(store.parent / "runs" / "run-1"))
    assert "ingest failed: no documents" in capsys.readouterr().out


def test_stage_that_was_published_keeps_its_figures_where_kubeflow_lost_its_outputs(store, server):
    ran(store, "collect")
    made = next((store / "collect").glob("[!.]*"))
    events = Events(Path(RunContext.from_environment().events), "collect")
    events.write(status="succeeded", run_started=1.0, run_finished=2.0, artifact=str(made))
    record, _ = end(store, {"collect": ("failed", "failed to upload output artifact")}, server)
    assert record["stages"]["collect"]["status"] == "succeeded"
    assert record["error"] == {"task": "collect", "message": "failed to upload output artifact"}


def test_run_that_a_retry_mended_has_succeeded_whatever_the_metadata_still_say(store, server):
    """Only a launcher moves the state of the DAG: after a failed attempt nothing does where the rest was cached."""
    nodes = [node.name for node in PIPELINES["data"].nodes]
    ran(store, *nodes)
    record, _ = end(store, dict.fromkeys(nodes, "cached"), server, state="FAILED")
    assert (record["status"], record["error"]) == ("succeeded", None)


def test_account_that_may_not_read_workflows_still_ends_the_run(store, server, capsys):
    ran(store, "collect")
    Events(Path(RunContext.from_environment().events), "ingest").write(status="running", started=1.0)
    server.fail("GET", "workflows", 403)
    record, _ = end(store, {"ingest": ("failed", OOM)}, server)
    assert record["error"] == {"task": "ingest", "message": "it ended without saying why"}
    assert "not allowed to get workflows" in capsys.readouterr().out


@pytest.mark.parametrize("asked", [True, False])
def test_step_that_is_no_stage_is_named_in_its_own_words(store, request, asked):
    server = request.getfixturevalue("server") if asked else None
    begin(TEXT, "night", "data", "")
    earlier = {"tokenizer": "nowhere", "tokens": "nowhere"}
    outputs = {name: dsl.Artifact(name=name, uri=str(store / name)) for name in earlier}
    with pytest.raises((ContractError, OSError)):
        import_artifacts(json.dumps({"places": earlier}), outputs)
    record, _ = end(store, {"earlier-for-pretraining": ("failed", "main: Error (exit code 1)")}, server)
    assert record["error"]["task"] == "earlier-for-pretraining"
    assert "nowhere" in record["error"]["message"]
    assert "earlier-for-pretraining failed" in (store.parent / "runs" / "run-1" / "report.html").read_text()


def test_recipe_that_is_none_is_recorded_too(store):
    wrong = TEXT.replace('"seed"', '"sead"')
    with pytest.raises(RecipeError):
        begin(wrong, "night", "data", "")
    record, summary = end(store, {}, recipe=wrong)
    assert (record["status"], record["stages"]) == ("failed", {})
    assert record["error"]["task"] == "resolve-recipe"
    assert "seed" in record["error"]["message"]
    assert "seed" in summary
