"""Wrong values are refused with their path, and what is asked for is what is rendered."""

import json

import pytest
import yaml
from mlflow.server.security_utils import is_allowed_host_header
from tests.helm.chart import CHART, VALUES, Object, containers, names, of_kind, pod_specs

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
# Objects of Kubernetes' own, whose many fields the API server checks.
MLFLOW = "Deployment/qwenops-mlflow/mlflow"
OPEN = {"nodeAffinity", "podAffinity", "podAntiAffinity", "global", "namedObject"}


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"mlflow__portt": 1}, "/mlflow"),
        ({"mlflow__port": "5000"}, "/mlflow/port"),
        ({"mlflow__port": 70000}, "/mlflow/port"),
        ({"pods__runAsUser": 0}, "/pods/runAsUser"),
        ({"images__server__pullPolicy": "Sometimes"}, "/images/server/pullPolicy"),
        ({"images__server__digest": "sha256:abc"}, "/images/server/digest"),
        ({"images__server__repository": "Upper/Case"}, "/images/server/repository"),
        ({"artifacts__claim__size": "much"}, "/artifacts/claim/size"),
        ({"artifacts__claim__accessModes": []}, "/artifacts/claim/accessModes"),
        ({"networkPolicy__scope": "cluster"}, "/networkPolicy/scope"),
        ({"networkPolicy__apiServer__cidrs": ["everywhere"]}, "/networkPolicy/apiServer/cidrs/0"),
        (
            {"kueue__clusterQueues": {"q": {"cohort": "", "flavors": {"cpu": {"cpu": "few"}}}}},
            "/kueue/clusterQueues/q/flavors/cpu/cpu",
        ),
        ({"kueue__localQueues": {"Queue": {"clusterQueue": "q"}}}, "/kueue/localQueues"),
        ({"trigger__schedule": "at noon"}, "/trigger/schedule"),
        ({"serviceAccounts__root": {}}, "/serviceAccounts"),
        ({"podDisruptionBudgets__rayHeads__maxUnavailable": "some"}, "/podDisruptionBudgets/rayHeads/maxUnavailable"),
        ({"monitoring__rules__stalledSeconds": 0}, "/monitoring/rules/stalledSeconds"),
        ({"postgresql__enabled": False}, "/mlflow/database/existingSecret"),
        ({"objectStore__endpoint": "https://s3.example.org"}, "/objectStore/endpoint"),
        ({"mlflow__database__existingSecret": "mine"}, "/postgresql/enabled"),
        ({"secrets": {"password": "x"}}, "''"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(chart, changes, path):
    assert f"at {path if path.startswith(chr(39)) else repr(path)}" in chart.refusal(**changes)


def objects_of(schema: Object, name: str = ""):
    """(name, schema) of every schema of an object, however deep."""
    if schema.get("type") == "object":
        yield name, schema
    for key in ("properties", "definitions"):
        for child, found in schema.get(key, {}).items():
            yield from objects_of(found, child)
    if isinstance(schema.get("additionalProperties"), dict):
        yield from objects_of(schema["additionalProperties"], name)
    for found in schema.get("patternProperties", {}).values():
        yield from objects_of(found, name)


def test_every_object_of_the_schema_is_closed():
    found = [name for name, schema in objects_of(SCHEMA) if name not in OPEN]
    assert len(found) > 30
    loose = [name for name, schema in objects_of(SCHEMA) if schema.get("additionalProperties", True) is True]
    assert set(loose) <= OPEN


def keys(value: Object, prefix: str = "") -> set[str]:
    """Dotted paths of all keys of nested mappings."""
    found = set()
    for key, child in value.items():
        found |= {prefix + key} | (keys(child, f"{prefix}{key}.") if isinstance(child, dict) else set())
    return found


def declared(schema: Object, prefix: str = "") -> set[str]:
    """Dotted paths of all keys a schema names."""
    while "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    found = set()
    for key, child in schema.get("properties", {}).items():
        found |= {prefix + key} | declared(child, f"{prefix}{key}.")
    return found


def test_schema_and_values_know_the_same_names():
    optional = {"global", "pods.affinity.nodeAffinity", "pods.affinity.podAffinity", "pods.affinity.podAntiAffinity"}
    assert declared(SCHEMA) - keys(DEFAULTS) == optional


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        (
            {"mlflow__enabled": False},
            {"Deployment/qwenops-mlflow", "Service/qwenops-mlflow", "PodDisruptionBudget/qwenops-mlflow"}
            | {"NetworkPolicy/qwenops-mlflow"},
        ),
        (
            {"postgresql__enabled": False, "mlflow__database__existingSecret": "db"},
            {f"{kind}/qwenops-postgresql" for kind in ("Secret", "Service", "StatefulSet", "NetworkPolicy")},
        ),
        (
            {"objectStore__server__enabled": False},
            {f"{kind}/qwenops-object-store" for kind in ("Secret", "Service", "StatefulSet", "NetworkPolicy")}
            | {"ConfigMap/qwenops-mlflow-scripts"},
        ),
        ({"artifacts__claim__create": False}, {"PersistentVolumeClaim/qwenops-artifacts"}),
        ({"serviceAccounts__ray__create": False}, {"ServiceAccount/qwenops-ray"}),
        (
            {"rbac__create": False},
            {
                f"{kind}/qwenops-{name}"
                for kind in ("Role", "RoleBinding")
                for name in ("pipeline", "trigger", "kubeflow-step")
            },
        ),
        ({"rbac__kubeflowStep": False}, {"Role/qwenops-kubeflow-step", "RoleBinding/qwenops-kubeflow-step"}),
        ({"podDisruptionBudgets__mlflow__enabled": False}, {"PodDisruptionBudget/qwenops-mlflow"}),
        ({"podDisruptionBudgets__rayHeads__enabled": False}, {"PodDisruptionBudget/qwenops-ray-heads"}),
        ({"monitoring__dashboard__enabled": False}, {"ConfigMap/qwenops-dashboard"}),
        ({"tests__doctor__enabled": False}, {"Pod/qwenops-test-doctor"}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_switching_a_part_off_removes_its_objects_and_no_other(render, changes, gone):
    assert names(render()) - names(render(**changes)) == gone
    assert names(render(**changes)) <= names(render())


@pytest.mark.parametrize(
    ("changes", "added"),
    [
        ({"kueue__enabled": True}, {"LocalQueue/qwenops"}),
        ({"sandbox__runtimeClass__create": True}, {"RuntimeClass/qwenops-sandbox"}),
        ({"trigger__enabled": True}, {"CronJob/qwenops-trigger"}),
        ({"tests__smoke__enabled": True}, {"Pod/qwenops-test-smoke"}),
        ({"monitoring__podMonitor__enabled": True}, {"PodMonitor/qwenops-steps", "PodMonitor/qwenops-ray"}),
        ({"monitoring__rules__enabled": True}, {"PrometheusRule/qwenops"}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_switching_a_part_on_adds_its_objects_and_no_other(render, changes, added):
    assert names(render(**changes)) - names(render()) == added


def test_a_digest_wins_over_a_tag(render):
    digest = "sha256:" + "0" * 64
    images = dict(containers(render(images__server__digest=digest, images__server__tag="x")))
    assert images[MLFLOW]["image"] == f"qwenops/server@{digest}"


@pytest.mark.parametrize("values", VALUES)
def test_every_image_comes_from_the_values(render, values):
    merged = {**DEFAULTS["images"]}
    repositories = {image["repository"] for image in merged.values()}
    for name, container in containers(render(values)):
        assert container["image"].partition("@")[0].rpartition(":")[0] in repositories, name
        assert container["imagePullPolicy"], name


def test_scheduling_and_volumes_reach_every_pod(render):
    placed = render(
        "gpu",
        pods__nodeSelector={"pool": "system"},
        pods__tolerations=[{"key": "system", "operator": "Exists"}],
        pods__priorityClassName="high",
        pods__extraVolumes=[{"name": "ca", "configMap": {"name": "ca"}}],
        pods__extraVolumeMounts=[{"name": "ca", "mountPath": "/etc/ca"}],
        imagePullSecrets=["registry"],
    )
    for name, _, spec in pod_specs(placed):
        assert spec["nodeSelector"] == {"pool": "system"}, name
        assert spec["tolerations"] == [{"key": "system", "operator": "Exists"}], name
        assert spec["priorityClassName"] == "high", name
        assert spec["imagePullSecrets"] == [{"name": "registry"}], name
        assert {"name": "ca", "configMap": {"name": "ca"}} in spec["volumes"], name
    for name, container in containers(placed):
        assert {"name": "ca", "mountPath": "/etc/ca"} in container["volumeMounts"], name


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        ("qwenops-mlflow:5000", True),
        ("qwenops-mlflow.team-a:5000", True),
        ("qwenops-mlflow.team-a.svc.cluster.local:5000", True),
        ("localhost:5000", True),
        ("mlflow.example.org", True),
        ("qwenops-mlflow.team-b:5000", False),
        ("evil.example.net", False),
    ],
)
def test_mlflow_answers_to_its_own_names_alone(render, host, answered):
    objects = render(namespace="team-a", mlflow__allowedHosts=["mlflow.example.org"])
    environment = {item["name"]: item.get("value") for item in dict(containers(objects))[MLFLOW]["env"]}
    allowed = environment["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert is_allowed_host_header(allowed, host) is answered


def test_artifacts_pass_through_the_server_or_straight_to_the_bucket(render):
    proxied = dict(containers(render()))[MLFLOW]["args"]
    direct = dict(containers(render(mlflow__artifacts__serve=False)))[MLFLOW]["args"]
    assert "--artifacts-destination=s3://qwenops/mlflow" in proxied
    assert "--default-artifact-root=s3://qwenops/mlflow" in direct


def test_external_services_are_named_by_secret_and_address(render):
    environment = {item["name"]: item for item in dict(containers(render("external")))[MLFLOW]["env"]}
    uri = environment["MLFLOW_BACKEND_STORE_URI"]["valueFrom"]["secretKeyRef"]
    assert uri == {"name": "mlflow-database", "key": "uri"}
    assert environment["MLFLOW_S3_ENDPOINT_URL"]["value"] == "https://s3.example.org"
    assert environment["AWS_ACCESS_KEY_ID"]["valueFrom"]["secretKeyRef"]["name"] == "bucket-keys"


def test_a_cloud_identity_needs_no_keys(render):
    assert not {item["name"] for item in dict(containers(render("gpu")))[MLFLOW]["env"]} & {
        "AWS_ACCESS_KEY_ID",
        "MLFLOW_S3_ENDPOINT_URL",
    }


def test_data_of_the_bundled_services_lives_in_the_pod_where_no_size_is_given(render):
    sets = of_kind(render(postgresql__size="", objectStore__server__size=""), "StatefulSet")
    for item in sets:
        assert "volumeClaimTemplates" not in item["spec"]
        assert {"name": "data", "emptyDir": {}} in item["spec"]["template"]["spec"]["volumes"]


def test_quota_is_listed_by_flavor_with_the_same_resources(render):
    (queue,) = of_kind(render("gpu"), "ClusterQueue")
    (group,) = queue["spec"]["resourceGroups"]
    assert queue["spec"]["cohortName"] == "research"
    assert queue["spec"]["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "research"}}
    for flavor in group["flavors"]:
        assert sorted(item["name"] for item in flavor["resources"]) == group["coveredResources"]
    (queue,) = of_kind(render("gpu", kueue__apiVersion="kueue.x-k8s.io/v1beta1"), "ClusterQueue")
    assert queue["spec"]["cohort"] == "research"


def test_flavors_with_different_resources_are_refused(chart):
    queue = {"cohort": "", "flavors": {"a": {"cpu": "1"}, "b": {"cpu": "1", "memory": "1Gi"}}}
    refusal = chart.refusal(kueue__enabled=True, kueue__clusterObjects=True, kueue__clusterQueues={"mine": queue})
    assert "kueue.clusterQueues.mine.flavors" in refusal


def test_trigger_runs_the_command_line_once_at_a_time(render):
    (trigger,) = of_kind(render("gpu"), "CronJob")
    assert trigger["spec"]["concurrencyPolicy"] == "Forbid"
    container = dict(containers([trigger]))["CronJob/qwenops-trigger/trigger"]
    assert container["command"] == ["qwenops"]
    assert container["args"][0] == "submit"
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/var/run/secrets/kubeflow/pipelines", "/etc/qwenops/pipelines"} <= mounts


def test_single_user_kubeflow_gets_no_token(render):
    (pod,) = (item for item in of_kind(render("kind"), "Pod") if item["metadata"]["name"].endswith("smoke"))
    assert "kubeflow-token" not in {volume["name"] for volume in pod["spec"]["volumes"]}
    assert "KF_PIPELINES_SA_TOKEN_PATH" not in {item["name"] for item in pod["spec"]["containers"][0]["env"]}


def test_helm_tests_run_in_order_and_leave_their_logs(render):
    pods = of_kind(render("kind"), "Pod")
    weights = {item["metadata"]["name"]: item["metadata"]["annotations"]["helm.sh/hook-weight"] for item in pods}
    assert weights == {"qwenops-test-doctor": "0", "qwenops-test-smoke": "1"}
    assert {item["metadata"]["annotations"]["helm.sh/hook-delete-policy"] for item in pods} == {"before-hook-creation"}
