"""A compiled pipeline on real pods, with the rights of the chart: steps, their RayJobs, the exit handler, a rerun."""

import json

import pytest
from kubernetes import client
from tests.integration.cluster.conftest import placed_in
from tests.integration.cluster.kubeflow_pods import PipelineOnPods
from tests.integration.cluster.rights import account_name, install_accounts

from qwenops_pipelines.compile import compile_pipeline
from qwenops_pipelines.dags.pipelines import find_pipeline
from qwenops_pipelines.recipes import load_recipe

pytestmark = [pytest.mark.integration, pytest.mark.timeout(2400)]


def states(folder, run_id):
    record = json.loads((folder / "runs" / run_id / "run.json").read_text())
    return {name: stage["status"] for name, stage in record["stages"].items()}


@pytest.fixture
def pipeline(cluster, namespace, placement, chart, real):
    """The first two stages of `smoke`, compiled for the placement with a store of the test's own."""
    real.mkdir()
    package, data = real / "smoke.yaml", find_pipeline("data")
    compile_pipeline(load_recipe("smoke", []), placed_in(placement, real), package, pipeline=data, until="ingest")
    install_accounts(cluster.api(), chart, namespace)
    return PipelineOnPods(cluster.api(), namespace, package, real / "kfp", account_name("pipeline"))


def test_pipeline_runs_its_stages_as_rayjobs_and_reuses_them(cluster, namespace, real, pipeline):
    assert pipeline.run("first") == "COMPLETE", pipeline.states
    assert states(real, "first") == {"collect": "succeeded", "ingest": "succeeded"}
    assert cluster.kube(namespace).jobs("") == []
    assert pipeline.run("second") == "COMPLETE", pipeline.states
    assert states(real, "second") == {"collect": "skipped", "ingest": "skipped"}


def test_failed_stage_ends_in_a_record_and_a_free_cluster(cluster, namespace, real, pipeline):
    recipe = load_recipe("smoke", []).model_dump(mode="json")
    recipe["collect"]["sources"] = [recipe["collect"]["sources"][0] | {"packages": ["no-such-package"]}]
    assert pipeline.run("broken", recipe_text=json.dumps(recipe)) == "FAILED"
    assert pipeline.states["finish-run"] == "Succeeded"
    assert states(real, "broken") == {"collect": "failed"}
    assert cluster.kube(namespace).jobs("") == []
    assert not [
        p for p in client.CoreV1Api(cluster.api()).list_namespaced_pod(namespace).items if "head" in p.metadata.name
    ]
