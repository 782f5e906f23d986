"""Names are valid and as unique as their parts; manifests satisfy KubeRay's schema and carry the whole placement."""

import functools
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.helm.pod_security import violations

from qwenops.platform.kubernetes.ray_manifest import Identity, label_value, ray_job
from qwenops.recipe.codec import canonical, decode
from qwenops.recipe.placement import GcsFaultTolerance, Placement, RayCluster, RayGroup, Resources, Toleration, Volume
from qwenops_pipelines.dags.nodes import NODES
from qwenops_pipelines.placements import by_name

CRDS = next((p / "shared/data/kuberay_crds" for p in Path(__file__).parents if (p / "shared/data").is_dir()), None)
LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
WORDS = st.text(min_size=1, max_size=80)


@given(WORDS, WORDS, WORDS, st.integers(0, 99))
def test_name_is_a_short_dns_label(run, node, key, attempt):
    name = Identity(run, node, key).name(attempt)
    assert len(name) <= 47
    assert LABEL.fullmatch(name)


@given(st.lists(st.tuples(WORDS, WORDS, WORDS, st.integers(0, 99)), min_size=2, max_size=8, unique=True))
def test_names_differ_where_run_stage_work_or_attempt_do(works):
    # A slash in one part must not make two works equal.
    works = [tuple(part.replace("/", "-") if isinstance(part, str) else part for part in work) for work in works]
    names = {Identity(run, node, key).name(attempt) for run, node, key, attempt in set(works)}
    assert len(names) == len(set(works))


@given(WORDS, st.integers(0, 9))
def test_name_is_the_same_in_every_process(node, attempt):
    first, second = Identity("run", node, "key"), Identity("run", node, "key", {"uid": "other owner"})
    assert first.name(attempt) == second.name(attempt)


@given(WORDS)
def test_label_value_is_valid(text):
    assert re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?", label_value(text))


def test_every_node_keeps_its_name_readable():
    names = [Identity("run", node.name, "f" * 64).name(0) for node in NODES]
    assert all(name.startswith(node.name.replace("_", "-")) for name, node in zip(names, NODES, strict=True))


def full() -> Placement:
    group = RayGroup(
        resources=Resources(cpu="8", memory="64Gi", accelerator="nvidia.com/gpu", num_accelerators=2),
        node_selector={"gpu": "h200"},
        image="workers@sha256:0",
        limit_cpu=True,
        replicas=2,
        min_replicas=0,
        max_replicas=4,
        volumes={"cache": Volume(host_path="/data", mount_path="/cache"), "all": Volume(claim="c", mount_path="/a")},
        shm_size="8Gi",
        ray_start_params={"num-cpus": "4"},
    )
    cluster = RayCluster(
        head=RayGroup(resources=Resources(cpu="2", memory="8Gi")),
        workers={"gpu": group},
        queue="team",
        queue_priority="high",
        autoscaling="v2",
        auth="token",
        auth_secret="ray-token",  # pragma: allowlist secret
        gcs_fault_tolerance=GcsFaultTolerance(redis_address="redis:6379", redis_password="redis/password"),
    )
    return Placement(
        name="full",
        image="qwenops@sha256:1",
        image_pull_policy="Never",
        pull_secrets=("registry",),
        service_account="runner",
        tolerations=(Toleration(key="gpu"), Toleration(key="spot", value="yes", effect="NoExecute")),
        affinity={"podAntiAffinity": {}},
        priority_class="high",
        runtime_class="nvidia",
        env={"A": "1"},
        secret_env={"TOKEN": "hub/token"},
        security_context={"runAsNonRoot": True},
        pod_security_context={"fsGroup": 1000},
        clusters={"all": cluster},
        launchers={"pretraining": "all"},
    )


def manifest(cluster: RayCluster):
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "step", "uid": "u"}
    return ray_job(cluster, Identity("run", "pretrain", "f" * 64, owner), 0, "python -m x y", "{}")


def test_placement_reaches_every_pod_and_groups_replace_what_they_set():
    cluster = full().cluster("pretraining")
    assert cluster
    spec = manifest(cluster)["spec"]
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    worker, submitter = group["template"]["spec"], spec["submitterPodTemplate"]["spec"]
    for pod in (head, worker, submitter):
        (container,) = pod["containers"]
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["serviceAccountName"] == "runner"
        assert pod["priorityClassName"] == "high"
        assert pod["runtimeClassName"] == "nvidia"
        assert pod["securityContext"] == {"fsGroup": 1000}
        assert pod["tolerations"][0] == {"key": "gpu", "effect": "NoSchedule", "operator": "Exists"}
        assert container["imagePullPolicy"] == "Never"
        assert container["securityContext"] == {"runAsNonRoot": True}
        secret = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
        assert container["env"] == [{"name": "A", "value": "1"}, secret]
    assert head["containers"][0]["image"] == submitter["containers"][0]["image"] == "qwenops@sha256:1"
    assert worker["containers"][0]["image"] == "workers@sha256:0"
    assert worker["nodeSelector"] == {"gpu": "h200"} and "nodeSelector" not in head
    assert {"name": "cache", "hostPath": {"path": "/data"}} in worker["volumes"]
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}} in worker["volumes"]
    assert worker["containers"][0]["resources"]["limits"] == {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "2"}
    assert (group["minReplicas"], group["replicas"], group["maxReplicas"]) == (0, 2, 4)


def pod_specs(made):
    """Spec of every pod that the operator makes of a RayJob: head, workers, submitter."""
    spec = made["spec"]
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups] + [spec["submitterPodTemplate"]["spec"]]


@pytest.mark.parametrize("name", ["h200_node", "kind"])
def test_pods_of_shipped_placements_are_admitted_to_a_restricted_namespace(name):
    placement = by_name(name)
    for area in placement.launchers:
        cluster = placement.cluster(area)
        assert cluster
        assert [fault for spec in pod_specs(manifest(cluster)) for fault in violations(spec)] == []


def test_autoscaler_beside_the_head_is_as_restricted_as_the_head():
    cluster = by_name("kind").cluster("data")
    assert cluster
    options = manifest(cluster.model_copy(update={"autoscaling": "v2"}))["spec"]["rayClusterSpec"]["autoscalerOptions"]
    assert options["securityContext"] == cluster.head.security_context != {}


def test_token_authentication_is_the_operators():
    cluster = full().cluster("pretraining")
    assert cluster
    options = manifest(cluster)["spec"]["rayClusterSpec"]["authOptions"]
    assert options == {"mode": "token", "secretName": cluster.auth_secret}
    own = cluster.model_copy(update={"auth_secret": ""})
    assert manifest(own)["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert "authOptions" not in manifest(RayCluster())["spec"]["rayClusterSpec"]


def test_queue_is_a_label_and_suspend_is_left_to_kueue():
    cluster = full().cluster("pretraining")
    assert cluster
    made = manifest(cluster)
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert made["spec"]["shutdownAfterJobFinishes"] is True
    assert "suspend" not in made["spec"]


def test_cluster_survives_its_way_through_the_environment():
    cluster = full().cluster("pretraining")
    assert cluster
    assert manifest(decode(RayCluster, canonical(cluster))) == manifest(cluster)


@functools.cache
def validator():
    """The operator's own schema of a RayJob."""
    if CRDS is None:
        pytest.skip("KubeRay's CRDs are not on this machine (shared/data/kuberay_crds)")
    name = "ray.io_rayjobs.yaml"
    document = yaml.load((CRDS / name).read_text(encoding="utf-8"), yaml.CSafeLoader)
    (version,) = (v for v in document["spec"]["versions"] if v["name"] == "v1")
    return jsonschema.Draft202012Validator(_closed(version["schema"]["openAPIV3Schema"]["properties"]["spec"]))


def faults(made):
    """Path and fault of each field the schema refuses; short, since a whole schema in a message helps nobody."""
    return [(error.json_path, error.message[:120]) for error in validator().iter_errors(made["spec"])]


def _closed(node):
    """An OpenAPI schema as JSON schema, with unknown fields refused as the API server's strict mode does."""
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _closed(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict) and "additionalProperties" not in node:
        made["additionalProperties"] = False
    if node.get("x-kubernetes-int-or-string"):
        made = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    return made


@pytest.mark.parametrize("mode", ["K8sJobMode", "HTTPMode", "SidecarMode"])
@pytest.mark.parametrize("name", ["full", "h200_node", "kind"])
def test_manifest_satisfies_the_operators_schema(name, mode):
    placement = full() if name == "full" else by_name(name)
    for area in placement.launchers:
        cluster = placement.cluster(area)
        assert cluster
        assert faults(manifest(cluster.model_copy(update={"submission_mode": mode}))) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("ttlSecondsAfterFinished",), "soon"),
        (("rayClusterSpec", "headGroupSpec", "template", "spec", "containers"), {}),
        (("rayClusterSpec", "workerGroupSpecs", 0, "maxReplicas"), None),
        (("entrypiont",), "python"),
    ],
)
def test_schema_refuses_a_wrong_manifest(path, value):
    cluster = full().cluster("pretraining")
    assert cluster
    made = manifest(cluster)
    place = made["spec"]
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    ((where, message),) = faults(made)
    assert str(path[-1]) in where + message
