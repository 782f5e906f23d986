"""Who may do what in the chart's namespace: one table, held against the rendered roles and against a real API server.

What is not in the table is refused. `decides` judges rendered roles as Kubernetes' RBAC does, so that the table
holds without a cluster; `tests/integration/cluster/test_rights.py` asks the same questions with the accounts' tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.helm.chart import Object, of_kind

ACCOUNTS = ("pipeline", "ray", "mlflow", "storage", "trigger")
_RUN_OF_KUBEFLOW = {"create", "get", "list"}

# (account, API group, resource, name of the one object or "" for all) -> verbs.
ALLOWED: dict[tuple[str, str, str, str], set[str]] = {
    ("pipeline", "ray.io", "rayjobs", ""): {"create", "get", "list", "watch", "patch", "delete"},
    ("pipeline", "", "pods", ""): {"get", "list"},
    ("pipeline", "", "pods/log", ""): {"get"},
    ("pipeline", "", "events", ""): {"list"},
    ("pipeline", "argoproj.io", "workflows", ""): {"get"},
    ("pipeline", "", "persistentvolumeclaims", ""): {"get"},
    ("pipeline", "argoproj.io", "workflowtaskresults", ""): {"create", "patch"},
    ("pipeline", "", "configmaps", "kfp-launcher"): {"get"},
    ("pipeline", "", "secrets", "mlpipeline-minio-artifact"): {"get"},
    ("trigger", "pipelines.kubeflow.org", "pipelines", ""): _RUN_OF_KUBEFLOW,
    ("trigger", "pipelines.kubeflow.org", "pipelines/versions", ""): _RUN_OF_KUBEFLOW,
    ("trigger", "pipelines.kubeflow.org", "experiments", ""): _RUN_OF_KUBEFLOW,
    ("trigger", "pipelines.kubeflow.org", "runs", ""): _RUN_OF_KUBEFLOW,
    ("trigger", "pipelines.kubeflow.org", "jobs", ""): _RUN_OF_KUBEFLOW | {"delete", "enable", "disable"},
}

VERBS = ("create", "get", "list", "watch", "update", "patch", "delete", "deletecollection")
# API group, version, resource, asked name: what runs, artifacts and secrets are made of, and the ways to more rights.
RESOURCES = (
    ("ray.io", "v1", "rayjobs", "some"),
    ("ray.io", "v1", "rayclusters", "some"),
    ("", "v1", "pods", "some"),
    ("", "v1", "pods/log", "some"),
    ("", "v1", "pods/exec", "some"),
    ("", "v1", "pods/proxy", "some"),
    ("", "v1", "events", "some"),
    ("", "v1", "services", "some"),
    ("", "v1", "services/proxy", "some"),
    ("", "v1", "secrets", "some"),
    ("", "v1", "secrets", "mlpipeline-minio-artifact"),
    ("", "v1", "configmaps", "some"),
    ("", "v1", "configmaps", "kfp-launcher"),
    ("", "v1", "persistentvolumeclaims", "some"),
    ("", "v1", "serviceaccounts", "some"),
    ("", "v1", "serviceaccounts/token", "some"),
    ("apps", "v1", "deployments", "some"),
    ("batch", "v1", "jobs", "some"),
    ("rbac.authorization.k8s.io", "v1", "roles", "some"),
    ("rbac.authorization.k8s.io", "v1", "rolebindings", "some"),
    ("argoproj.io", "v1alpha1", "workflows", "some"),
    ("argoproj.io", "v1alpha1", "workflowtaskresults", "some"),
    ("pipelines.kubeflow.org", "v2beta1", "pipelines", "some"),
    ("pipelines.kubeflow.org", "v2beta1", "runs", "some"),
    ("pipelines.kubeflow.org", "v2beta1", "jobs", "some"),
)


@dataclass(frozen=True)
class Question:
    """May an account do `verb` to a resource; `name` is empty where the verb is for all of a kind."""

    group: str
    version: str
    resource: str
    verb: str
    name: str


def questions() -> Iterator[Question]:
    """Every verb of every resource that HTTP can ask for."""
    for group, version, resource, name in RESOURCES:
        for verb in ("create", "get") if "/" in resource else VERBS:
            named = "/" in resource or verb in ("get", "update", "patch", "delete")
            yield Question(group, version, resource, verb, name if named else "")


def is_allowed(account: str, asked: Question) -> bool:
    """What the table says."""
    named = {"", asked.name} if asked.name else {""}
    return any(asked.verb in ALLOWED.get((account, asked.group, asked.resource, name), ()) for name in named)


def decides(objects: list[Object], account: str, namespace: str, asked: Question) -> bool:
    """What rendered roles and bindings say, judged as Kubernetes does: the union of all rules, nothing denied."""
    roles = {item["metadata"]["name"]: item["rules"] for item in of_kind(objects, "Role")}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    bound = [item["roleRef"]["name"] for item in of_kind(objects, "RoleBinding") if subject in item["subjects"]]
    return any(
        asked.group in rule["apiGroups"]
        and asked.resource in rule["resources"]
        and asked.verb in rule["verbs"]
        and asked.name in rule.get("resourceNames", [asked.name])
        for role in bound
        for rule in roles[role]
    )
