"""The compiled pipelines under the rules of Kubeflow's own launcher: what each step hands on reaches the next one."""

import json
from pathlib import Path

import boto3
import pytest
from tests.dags.artifacts import TEXT, publish
from tests.dags.kfp_driver import checked
from tests.dags.kfp_launcher import Launcher
from tests.dags.kfp_messages import executor_input, executor_output, recorded
from tests.dags.kfp_objects import Bucket, LauncherError
from tests.dags.test_cluster_pipelines import FILES
from tests.platform.servers import KEYS, s3_server

from qwenops.platform.context import RunContext
from qwenops.platform.launch.kfp_artifacts import FORM
from qwenops.platform.storage import addresses, object_store
from qwenops.recipe.codec import canonical
from qwenops_pipelines.compile import compile_pipeline
from qwenops_pipelines.dags.nodes import NODES
from qwenops_pipelines.dags.pipelines import PIPELINES
from qwenops_pipelines.placements import by_name
from qwenops_pipelines.recipes import load_recipe
from qwenops_pipelines.steps.begin import begin

_MOST_BYTES = 2_000


@pytest.fixture
def place(request, store, tmp_path, monkeypatch):
    """Fields of a placement, for a store on a shared volume, or in a bucket beside Kubeflow's own where asked."""
    places = {"artifact_root": str(store), "cache_root": str(tmp_path / "cache"), "tracking_uri": ""}
    if getattr(request, "param", "volume") == "volume":
        yield places
        return
    with s3_server() as address:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL_S3": address}).items():
            monkeypatch.setenv(name, value)
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket="artifacts")
        yield places | {"artifact_root": "s3://artifacts/team"}


@pytest.fixture
def made(place):
    """An artifact of every node in the store; node name to its address."""
    root = place["artifact_root"]
    context = RunContext(store=root, events="", cache=place["cache_root"])
    folders = {}
    for node in NODES:
        options = {"files": FILES.get(node.name, {}), "address": lambda path: addresses.address_of(path, context)}
        folders[node.name] = publish(addresses.local_path(root, context), node.name, folders, **options)
        if addresses.is_remote(root):
            assert object_store.publish(folders[node.name], addresses.address_of(folders[node.name], context))
    return {name: addresses.address_of(folder, context) for name, folder in folders.items()}


def launcher(tmp_path, places, placement, pipeline, root="minio://mlpipeline/v2/artifacts"):
    package = tmp_path / "pipeline.yaml"
    there = by_name(placement).model_copy(update=places)
    compile_pipeline(load_recipe("smoke", []), there, package, pipeline=PIPELINES[pipeline])
    return Launcher(package, root, tmp_path / "pod")


def record(places, run_id):
    root = places["artifact_root"]
    folder = Path(places["cache_root"] if addresses.is_remote(root) else Path(root).parent)
    return json.loads((folder / "runs" / run_id / "run.json").read_text())


@pytest.mark.parametrize(
    ("place", "placement", "pipeline"),
    [
        ("volume", "kind", "full"),
        ("volume", "h200_node", "full"),
        ("bucket", "h200_node", "evaluation"),
        pytest.param("bucket", "kind", "full", marks=pytest.mark.integration),
        pytest.param("bucket", "h200_node", "full", marks=pytest.mark.integration),
    ],
    indirect=["place"],
)
def test_every_step_hands_on_what_the_next_one_reads(place, made, tmp_path, placement, pipeline):
    nodes = PIPELINES[pipeline].nodes
    made = {name: made[name] for name in (*PIPELINES[pipeline].earlier, *(node.name for node in nodes))}
    back_end = launcher(tmp_path, place, placement, pipeline)
    assert back_end.run("run-1") == "COMPLETE", back_end.error
    assert back_end.error is None
    assert set(back_end.states.values()) == {"COMPLETE"}
    ended = record(place, "run-1")
    assert ended["status"] == "succeeded"
    there = {name: stage["outputs"]["output"]["path"] for name, stage in ended["stages"].items()}
    assert there == {node.name: made[node.name] for node in nodes}
    # Kubeflow's own URIs, each below its root and none twice; the artifacts themselves stay in the store.
    uris = [artifact["uri"] for artifact in back_end.artifacts]
    assert len(set(uris)) == len(uris)
    assert all(uri.startswith("minio://mlpipeline/v2/artifacts/qwenops-smoke") for uri in uris)
    handed = [artifact for artifact in back_end.artifacts if "address" in artifact["metadata"]]
    assert {artifact["metadata"]["address"] for artifact in handed} == set(made.values())
    held = {f"minio://mlpipeline/{key}": data for key, data in back_end.buckets["minio://mlpipeline"].items()}
    assert max(len(held[artifact["uri"]]) for artifact in handed) < _MOST_BYTES
    # A second run starts no stage, and its gate reads the verdict through the cached artifact.
    assert back_end.run("run-2") == "COMPLETE", back_end.error
    started = {name for name, state in back_end.states.items() if state != "CACHED"}
    assert started == {"resolve-recipe", "enforce-gate", "finish-run"}
    assert record(place, "run-2")["status"] == "succeeded"


@pytest.mark.parametrize("pipeline", ["data", "pretraining"])
def test_run_whose_last_steps_were_cached_is_recorded_as_it_ended(place, made, tmp_path, pipeline):
    back_end = launcher(tmp_path, place, "kind", pipeline, root="s3://kubeflow/roots/team?region=eu")
    assert back_end.run("run-1") == "COMPLETE", back_end.error
    # No launcher runs after the first step, so nothing moves the state that Kubeflow has of the whole.
    assert back_end.run("run-2") == "RUNNING", back_end.error
    for run_id in ("run-1", "run-2"):
        assert record(place, run_id)["status"] == "succeeded"


def test_failed_gate_is_a_failed_run_for_kubeflow_and_in_the_record(place, made, tmp_path):
    back_end = launcher(tmp_path, place, "kind", "evaluation")
    assert back_end.run("run-1", failed_gate="fail") == "FAILED"
    assert "pass rate fell" in str(back_end.error)
    assert record(place, "run-1")["status"] == "failed"


@pytest.mark.parametrize("pipeline", ["data", "pretraining"])
def test_cache_entries_with_the_uris_of_former_code_are_not_taken_up(store, tmp_path, monkeypatch, pipeline):
    """Kubeflow has kept steps whose URIs were the store's addresses; what reads such an artifact never starts."""
    monkeypatch.setenv("QWENOPS_RUN_ID", "run-1")
    places = {"artifact_root": str(store), "cache_root": str(tmp_path / "cache"), "tracking_uri": "", "fuse": ()}
    made = {}
    for node in NODES:
        made[node.name] = publish(store, node.name, made, files=FILES.get(node.name, {}))
    back_end = launcher(tmp_path, places, "kind", pipeline)
    former = {name: str(made[name]) for name in ("collect", "tokenizer", "tokens")}
    collect = begin(TEXT, "night", pipeline, "")["collect"]
    assert FORM in collect
    collect = collect.replace(f" {FORM}", "")
    back_end.plant(
        "collect" if pipeline == "data" else "earlier-for-pretraining",
        *{
            "data": ({"config": collect}, {"output": former["collect"]}),
            "pretraining": ({"earlier": canonical({name: former[name] for name in ("tokenizer", "tokens")})}, former),
        }[pipeline],
    )
    assert back_end.run("run-1") == "COMPLETE", back_end.error
    assert "CACHED" not in back_end.states.values()


RUN = Bucket.of_root("minio://mlpipeline/v2/artifacts/qwenops-smoke/run-1?region=eu")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("/mnt/qwenops/artifacts/collect/0123", "unrecognized uri format"),
        ("file:///mnt/qwenops", "unsupported Cloud bucket"),
        ("https://bucket.example/x", "unsupported Cloud bucket"),
    ],
)
def test_double_refuses_an_input_that_no_launcher_can_fetch(uri, words):
    with pytest.raises(LauncherError, match=words):
        Bucket.of_artifact(uri)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://artifacts/team/collect/0123", "does not have expected bucket prefix"),
        ("/mnt/qwenops/artifacts/collect/0123", "does not have expected bucket prefix"),
        # Another run's, whose root is not this one's.
        (
            "minio://mlpipeline/v2/artifacts/qwenops-smoke/run-2/collect/1/output",
            "does not have expected bucket prefix",
        ),
        ("minio://mlpipeline/v2/artifacts/qwenops-smoke/run-1", "has empty key"),
    ],
)
def test_double_refuses_an_output_outside_the_root_of_its_run(uri, words):
    with pytest.raises(LauncherError, match=words):
        RUN.key(uri)
    inside = "minio://mlpipeline/v2/artifacts/qwenops-smoke/run-1/collect/1/output"
    assert RUN.key(inside) == "v2/artifacts/qwenops-smoke/run-1/collect/1/output"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"parameterValues": {"loss": NaN}}', "no JSON"),
        ('{"parameterValues": {}, "seconds": 3}', 'no field named "seconds"'),
        ('{"artifacts": {"output": {"artifacts": [{"url": "s3://b/k"}]}}}', 'no field named "url"'),
        ("not at all", "Failed to load JSON"),
    ],
)
def test_double_refuses_an_output_file_that_is_no_executor_output(text, words):
    with pytest.raises(LauncherError, match=words):
        executor_output(text)


def test_double_hands_metadata_on_as_the_database_keeps_it():
    given = {"uri": "minio://b/k", "type": {"schemaTitle": "system.Model"}}
    kept = recorded("output", given | {"metadata": {"records": 3, "whole": True, "parts": [1], "text": "a"}})
    assert kept["metadata"] | {"display_name": "", "store_session_info": ""} == {
        **{"records": 3.0, "whole": 1.0, "parts": {"list": [1]}, "text": "a"},
        **{"display_name": "", "store_session_info": ""},
    }
    for odd in ({"metadata": {"alias": None}}, {"type": {"schemaUri": "x"}}):
        with pytest.raises(LauncherError, match=r"MLMD artifact|schema"):
            recorded("output", given | odd)


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [("NUMBER_INTEGER", "3", "type mismatch"), ("STRUCT", [1], "type mismatch"), ("LIST", None, "neither value")],
)
def test_double_refuses_a_parameter_of_another_type(kind, value, words):
    component = {"inputDefinitions": {"parameters": {"given": {"parameterType": kind}}}}
    with pytest.raises(LauncherError, match=words):
        checked(component, {} if value is None else {"given": value})


def test_double_takes_any_value_as_text_and_fills_in_defaults():
    defined = {
        "a": {"parameterType": "STRING"},
        "b": {"parameterType": "STRING", "defaultValue": "d", "isOptional": True},
    }
    assert checked({"inputDefinitions": {"parameters": defined}}, {"a": [1]}) == {"a": "[1]", "b": "d"}


def test_double_refuses_an_input_that_no_process_can_be_given():
    message = {"inputs": {"parameterValues": {"recipe": "x" * 131_072}}, "outputs": {}}
    with pytest.raises(LauncherError, match="argument list too long"):
        executor_input(message)


def test_double_refuses_a_root_without_a_local_path(place, tmp_path):
    back_end = launcher(tmp_path, place, "kind", "data", root="mem://bucket/root")
    back_end.run("run-1")
    assert "unsupported storage scheme" in str(back_end.error)
