"""Wrong values are refused with their path, and switching a part on or off changes its objects and no other."""

import json

import pytest
import yaml
from tests.helm.chart import CHART, Object, names

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
# Objects of Kubernetes' own, whose many fields the API server checks.
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
        ({"secrets": {"password": "x"}}, "''"),  # pragma: allowlist secret
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
