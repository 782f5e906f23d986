"""A dressed step carries the placement: who runs it, how it finds its run, and every field Kubeflow can apply."""

import json
from dataclasses import replace

import pytest
import yaml
from kfp import compiler, dsl

from qwenops.errors import RecipeError
from qwenops.platform.context import RunContext
from qwenops.recipe.codec import decode
from qwenops.recipe.placement import Placement, RayCluster, RayGroup, Resources, Toleration, Volume
from qwenops_pipelines.dags.kubernetes_options import set_kubernetes_options


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def step(text: str):
    print(text)


AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]
        }
    }
}


def place(**fields):
    small = RayCluster(head=RayGroup(resources=Resources(num_accelerators=2, accelerator="nvidia.com/gpu")))
    basis = {
        "name": "test",
        "image": "qwenops:1",
        "artifact_root": "/mnt/a",
        "cache_root": "/mnt/c",
        "clusters": {"small": small},
        "launchers": {"data": "small"},
        "resources": {"delivery": Resources(cpu="3", memory="6G")},
        "launcher_resources": Resources(cpu="50m", memory="512Mi"),
    }
    return Placement(**(basis | fields))


def dressed(tmp_path, placement, area):
    """The step's container and its Kubernetes settings, as compiled."""

    @dsl.pipeline(name="one")
    def pipeline():
        set_kubernetes_options(step(text="x"), placement, area)

    compiler.Compiler().compile(pipeline, str(tmp_path / "p.yaml"))
    spec, *rest = yaml.safe_load_all((tmp_path / "p.yaml").read_text())
    container = spec["deploymentSpec"]["executors"]["exec-step"]["container"]
    kubernetes = rest[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-step"] if rest else {}
    return container, kubernetes


def environment(container):
    return {item["name"]: item["value"] for item in container["env"]}


def test_step_of_a_launched_area_waits_with_small_resources(tmp_path):
    container, kubernetes = dressed(tmp_path, place(), "data")
    env = environment(container)
    cluster = decode(RayCluster, env["QWENOPS_CLUSTER"])
    assert cluster.head.image == "qwenops:1"
    assert env["QWENOPS_USE_GPU"] == "yes"
    assert "accelerator" not in container["resources"]
    assert container["resources"]["resourceMemoryRequest"] == "512Mi"
    fields = {item["name"]: item["fieldPath"] for item in kubernetes["fieldPathAsEnv"]}
    assert fields["QWENOPS_POD_NAME"] == "metadata.name"
    assert "{{" not in json.dumps(env)


def test_step_of_another_area_runs_its_stage_itself(tmp_path):
    container, _ = dressed(tmp_path, place(), "delivery")
    env = environment(container)
    assert "QWENOPS_CLUSTER" not in env
    assert "QWENOPS_USE_GPU" not in env
    assert container["resources"]["resourceMemoryRequest"] == "6G"


def test_runs_events_lie_apart_and_survive_a_second_reading():
    env = {"QWENOPS_STORE": "/s", "QWENOPS_EVENTS": "/s/events", "QWENOPS_CACHE": "/c", "QWENOPS_RUN_ID": "run-7"}
    context = RunContext.from_environment(env)
    assert context.events == "/s/events/run-7"
    assert RunContext.from_environment(context.to_environment()) == context
    assert replace(context, run_id="") != context


def test_step_gets_every_field_that_kubeflow_applies(tmp_path):
    placement = place(
        image_pull_policy="Never",
        pull_secrets=("registry",),
        labels={"team": "a"},
        annotations={"note": "b"},
        node_selector={"disk": "ssd"},
        tolerations=(Toleration(key="gpu"),),
        affinity=AFFINITY,
        volumes={"all": Volume(claim="claim", mount_path="/mnt", sub_path="x")},
        shm_size="1Gi",
        env={"A": "1"},
        secret_env={"TOKEN": "hub/token"},
        security_context={"runAsUser": 1000, "runAsNonRoot": True, "readOnlyRootFilesystem": True},
        timeout_seconds=600,
    )
    container, kubernetes = dressed(tmp_path, placement, "delivery")
    text = json.dumps(kubernetes)
    assert environment(container)["A"] == "1"
    assert kubernetes["imagePullPolicy"] == "Never"
    assert kubernetes["activeDeadlineSeconds"] == "600"
    assert kubernetes["podMetadata"] == {
        "labels": {"team": "a", "app.kubernetes.io/part-of": "qwenops"},
        "annotations": {"note": "b"},
    }
    assert kubernetes["nodeSelector"]["labels"] == {"disk": "ssd"}
    assert kubernetes["securityContext"]["runAsUser"] == "1000"
    for part in ("registry", "nodeSelectorTerms", "claim", "/dev/shm", "hub", "TOKEN", "gpu"):
        assert part in text


@pytest.mark.parametrize(("mode", "shown"), [("HTTPMode", True), ("K8sJobMode", False)])
def test_step_that_reads_the_dashboard_gets_rays_token_and_no_other_step(tmp_path, mode, shown):
    cluster = RayCluster(auth="token", auth_secret="ray-token", submission_mode=mode)  # pragma: allowlist secret
    placement = place(clusters={"small": cluster})
    _, kubernetes = dressed(tmp_path, placement, "data")
    assert ("RAY_AUTH_TOKEN" in json.dumps(kubernetes)) is shown
    _, kubernetes = dressed(tmp_path, placement, "delivery")
    assert "RAY_AUTH_TOKEN" not in json.dumps(kubernetes)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("priority_class", "high"),
        ("runtime_class", "nvidia"),
        ("affinity", {"podAffinity": {}}),
        ("pod_security_context", {"fsGroup": 1}),
        ("volumes", {"v": Volume(host_path="/data", mount_path="/data")}),
    ],
)
def test_field_that_kubeflow_cannot_apply_is_refused_and_not_dropped(tmp_path, field, value):
    with pytest.raises(RecipeError, match=field):
        dressed(tmp_path, place(**{field: value}), "delivery")
