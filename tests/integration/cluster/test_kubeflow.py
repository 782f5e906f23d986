"""A compiled pipeline on a real Kubeflow Pipelines back end, with the rights of the chart: a run, a rerun, a failure.

`QWENOPS_TEST_KFP` names the back end's API. Steps run where Kubeflow runs them and own RayJobs there, which KubeRay
takes up, or `PodOperator` where it does not run.
"""

import contextlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from tests.integration.cluster.conftest import accounts, claims, placed_in
from tests.integration.cluster.operator_pods import PodOperator
from tests.integration.cluster.rights import account_name, install_accounts, remove_accounts

from qwenops.errors import StageError
from qwenops_pipelines.compile import compile_pipeline
from qwenops_pipelines.dags.pipelines import find_pipeline
from qwenops_pipelines.follow import wait
from qwenops_pipelines.kubeflow import connect, silence_client
from qwenops_pipelines.recipes import load_recipe
from qwenops_pipelines.submit import submit
from qwenops_pipelines.versions import EXPERIMENT, Target, find_pipeline_id, read_package

HOST = os.environ.get("QWENOPS_TEST_KFP", "")
NAMESPACE = os.environ.get("QWENOPS_TEST_KFP_NAMESPACE", "kubeflow")
MANY_USERS = os.environ.get("QWENOPS_TEST_KFP_USERS", "one") == "many"
SECONDS = 1800

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(2 * SECONDS + 600),
    pytest.mark.skipif(not HOST, reason="no Kubeflow Pipelines: QWENOPS_TEST_KFP names no address"),
]


class Kubeflow:
    """The back end, and the folder of the artifacts, which this machine may not see."""

    def __init__(self, package: Path, folder: Path) -> None:
        namespace = NAMESPACE if MANY_USERS else ""
        self._target = Target(HOST, namespace, service_account=account_name("pipeline"))
        self._package, self._folder, self.runs = read_package(package), folder, list[str]()
        self.client = connect(HOST, namespace)
        self._had_pipeline, self._had_experiment = self._pipeline_id() is not None, self._experiment_id() is not None

    def run(self, **parameters: str) -> str:
        """Start a run and follow it to its end; returns its id."""
        client, run_id = submit(self._target, self._package, parameters, self._folder.name)
        self.runs.append(run_id)
        assert wait(client, HOST, run_id, self._package, SECONDS) == 0
        return run_id

    def states(self, run_id: str) -> dict[str, str]:
        """State of each step, as Kubeflow tells it."""
        with silence_client():
            tasks = self.client.get_run(run_id).run_details.task_details
        return {task.display_name: str(task.state) for task in tasks}

    def record(self, run_id: str) -> dict[str, str] | None:
        """Status of each stage in the run's own record; None where this machine does not see the artifacts."""
        if not self._folder.is_dir():
            return None
        record = json.loads((self._folder / "runs" / run_id / "run.json").read_text())
        return {name: stage["status"] for name, stage in record["stages"].items()}

    def forget(self) -> None:
        """Remove the runs, the version, and pipeline and experiment unless they were there before."""
        with silence_client():
            for run_id in self.runs:
                self.client.delete_run(run_id)
            if pipeline := self._pipeline_id():
                for version in self.client.list_pipeline_versions(pipeline, page_size=100).pipeline_versions or []:
                    # Kubeflow makes a first version of its own with a new pipeline.
                    if not self._had_pipeline or version.description == self._package.digest:
                        self.client.delete_pipeline_version(pipeline, version.pipeline_version_id)
                if not self._had_pipeline:
                    self.client.delete_pipeline(pipeline)
            if not self._had_experiment and (experiment := self._experiment_id()):
                self.client.delete_experiment(experiment)

    def _pipeline_id(self) -> str | None:
        with silence_client():
            return find_pipeline_id(self.client, self._target, self._package.name)

    def _experiment_id(self) -> str | None:
        with silence_client(), contextlib.suppress(ValueError):
            named = {"experiment_name": EXPERIMENT, "namespace": self._target.namespace or None}
            return self.client.get_experiment(**named).experiment_id
        return None


@pytest.fixture
def kubeflow(cluster, chart, placement, tmp_path):
    """The first two stages of `smoke` on the back end, in its namespace, which is left as it was."""
    if not cluster.has_nodes:
        pytest.skip("no node runs pods in this cluster")
    root = Path(placement.artifact_root) / f"test-{time.time_ns()}"
    package, data = tmp_path / "smoke.yaml", find_pipeline("data")
    compile_pipeline(load_recipe("smoke", []), placed_in(placement, root), package, pipeline=data, until="ingest")
    with contextlib.ExitStack() as stack:
        if root.parent.is_dir():
            stack.callback(shutil.rmtree, root, ignore_errors=True)
            root.mkdir()
            # The pods' user is another than this process's.
            root.chmod(0o777)
        stack.enter_context(claims(cluster, NAMESPACE, placement))
        stack.callback(remove_accounts, cluster.api(), install_accounts(cluster.api(), chart, NAMESPACE), NAMESPACE)
        stack.enter_context(accounts(cluster, NAMESPACE, placement))
        if not cluster.has_operator:
            stack.enter_context(PodOperator(cluster.api(), NAMESPACE))
        found = Kubeflow(package, root)
        stack.callback(found.forget)
        yield found


def jobs_of(cluster, run_id):
    return cluster.kube(NAMESPACE).jobs(f"qwenops.io/run={run_id}")


def test_pipeline_runs_its_stages_as_rayjobs_and_reuses_them(cluster, kubeflow):
    first = kubeflow.run()
    assert jobs_of(cluster, first) == []
    assert kubeflow.record(first) in (None, {"collect": "succeeded", "ingest": "succeeded"})
    second = kubeflow.run()
    assert kubeflow.record(second) in (None, {"collect": "skipped", "ingest": "skipped"})


def test_failed_stage_ends_in_a_finished_record_and_a_free_cluster(cluster, kubeflow):
    recipe = load_recipe("smoke", []).model_dump(mode="json")
    recipe["collect"]["sources"] = [recipe["collect"]["sources"][0] | {"packages": ["no-such-package"]}]
    with pytest.raises(StageError, match="collect"):
        kubeflow.run(recipe_text=json.dumps(recipe))
    (run_id,) = kubeflow.runs
    assert kubeflow.states(run_id)["finish-run"] == "SUCCEEDED"
    assert kubeflow.record(run_id) in (None, {"collect": "failed"})
    assert jobs_of(cluster, run_id) == []
