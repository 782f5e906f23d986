"""`qwenops doctor --cluster`: what a cluster lacks for a placement, each with the command that mends it.

Operators are recognised by the API groups they serve, which every user may list. What a user may not look at is
"unknown" and no failure. The image is really pulled: by a pod that ends at once and is deleted.
"""

import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import urllib3
from kubernetes import client, config

from qwenops.errors import PlatformError
from qwenops.platform.kubernetes.client import RIGHTS, SERVICE_ACCOUNT
from qwenops.recipe.placement import Placement

# The client's own annotations call every field of every object optional.
_K8S: Any = client

Groups = dict[str, str]
"""The API groups that the cluster serves, each with the version it prefers."""
State = Literal["ok", "missing", "unknown"]
KUBERAY = ((1, 5), (1, 8))
"""Supported versions of KubeRay: from the first, below the second."""
_KUEUE = "kueue.x-k8s.io"
_INSTALL = "see the KFP, KubeRay and Kueue commands in infra/README.md"
_PULL_SECONDS, _POLL_SECONDS = 120.0, 1.0
_PULL_FAILED = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")


@dataclass(frozen=True)
class Finding:
    """One check: what was looked for, how it stands, what was seen, and the command that mends it."""

    name: str
    state: State
    detail: str = ""
    command: str = ""


def check_cluster(
    placement: Placement, namespace: str, api: client.ApiClient | None = None, pull_seconds: float = _PULL_SECONDS
) -> list[Finding]:
    """Check the cluster that the kubeconfig (or the pod's service account) names.

    Args:
        placement: Whose claims, queues, secrets, accelerators and image are looked for.
        namespace: Where runs live; empty takes the kubeconfig's.
        api: Client to use instead.
        pull_seconds: Longest wait for the image.

    Raises:
        PlatformError: there is no cluster to look at.
    """
    api, namespace = (api, namespace or "default") if api else _connect(namespace)
    try:
        version = _K8S.VersionApi(api).get_code().git_version
        groups = {group.name: group.preferred_version.version for group in _K8S.ApisApi(api).get_api_versions().groups}
    except (client.ApiException, urllib3.exceptions.HTTPError) as error:
        raise PlatformError(
            "the cluster cannot be reached",
            expected="an answer from its API server",
            found=error,
            action="kubectl cluster-info",
        ) from error
    return [
        Finding("Kubernetes", "ok", version),
        _kubeflow(api, groups),
        _kuberay(api, groups),
        *_kueue(api, groups, placement, namespace),
        *_accelerators(api, placement),
        *_storage(api, placement, namespace),
        *_secrets(api, placement, namespace),
        *_permissions(api, namespace),
        _image(api, placement, namespace, pull_seconds),
    ]


def report(findings: list[Finding]) -> int:
    """Print a line per finding; returns 0, or 5 when something is missing."""
    for finding in findings:
        detail = f"  ({finding.detail})" if finding.detail else ""
        command = f"  ->  {finding.command}" if finding.command and finding.state != "ok" else ""
        print(f"{finding.state:<8} {finding.name}{detail}{command}")
    return PlatformError.exit_status if any(finding.state == "missing" for finding in findings) else 0


def _connect(namespace: str) -> tuple[client.ApiClient, str]:
    try:
        config.load_incluster_config()
        return client.ApiClient(), namespace or SERVICE_ACCOUNT.read_text(encoding="utf-8").strip()
    except config.ConfigException:
        pass
    try:
        config.load_kube_config()
        current = dict(config.list_kube_config_contexts()[1])["context"].get("namespace", "default")
    except (config.ConfigException, OSError) as error:
        raise PlatformError(
            "there is no cluster to look at",
            expected="a kubeconfig, or a service account inside a pod",
            found=error,
            action="export KUBECONFIG=FILE",
        ) from error
    return client.ApiClient(), namespace or current


def _kubeflow(api: client.ApiClient, groups: Groups) -> Finding:
    lacking = {"kubeflow.org", "argoproj.io"} - groups.keys()
    if lacking:
        return Finding("Kubeflow Pipelines", "missing", f"no API group {min(lacking)}", _INSTALL)
    found = _ask(lambda: _K8S.CoreV1Api(api).read_namespaced_service("ml-pipeline", "kubeflow"))
    if found == "absent":
        return Finding(
            "Kubeflow Pipelines",
            "missing",
            "no service ml-pipeline in namespace kubeflow",
            "kubectl -n kubeflow get svc",
        )
    return Finding("Kubeflow Pipelines", "ok", "" if found != "denied" else "API groups; the service cannot be read")


def _kuberay(api: client.ApiClient, groups: Groups) -> Finding:
    helm = (
        "helm install kuberay-operator kuberay/kuberay-operator --version 1.7.0 -n kuberay-operator --create-namespace"
    )
    if "ray.io" not in groups:
        return Finding("KubeRay", "missing", "no API group ray.io", helm)
    served = {item.name for item in _K8S.CustomObjectsApi(api).get_api_resources("ray.io", "v1").resources}
    if not {"rayjobs", "rayclusters"} <= served:
        return Finding("KubeRay", "missing", f"ray.io/v1 serves {', '.join(sorted(served))}", helm)
    selector = "app.kubernetes.io/name=kuberay-operator"
    found = _ask(lambda: _K8S.AppsV1Api(api).list_deployment_for_all_namespaces(label_selector=selector))
    if isinstance(found, str):
        return Finding("KubeRay", "ok", "ray.io/v1; its version cannot be read")
    images = [container.image for item in found.items for container in item.spec.template.spec.containers]
    versions = [match for image in images if (match := re.search(r":v?(\d+)\.(\d+)", image))]
    if not versions:
        return Finding("KubeRay", "unknown", "ray.io/v1, and no operator with a version tag", helm)
    version = (int(versions[0][1]), int(versions[0][2]))
    good = KUBERAY[0] <= version < KUBERAY[1]
    return Finding("KubeRay", "ok" if good else "missing", f"{version[0]}.{version[1]}; 1.5 to 1.7 are supported", helm)


def _kueue(api: client.ApiClient, groups: Groups, placement: Placement, namespace: str) -> Iterator[Finding]:
    objects = _K8S.CustomObjectsApi(api)
    for queue in _named(placement, "queue"):
        if _KUEUE not in groups:
            yield Finding(f"Kueue queue {queue}", "missing", f"no API group {_KUEUE}", _INSTALL)
            continue
        # Kueue serves v1beta2 from 0.15 on, and v1beta1 no more from 0.20 on.
        place = (_KUEUE, groups[_KUEUE], namespace, "localqueues", queue)
        found = _ask(lambda place=place: objects.get_namespaced_custom_object(*place))
        yield _there(f"Kueue queue {queue}", found, "helm upgrade qwenops helm/qwenops --reuse-values")


def _accelerators(api: client.ApiClient, placement: Placement) -> Iterator[Finding]:
    for name in _named(placement, "accelerator"):
        found = _ask(lambda: _K8S.CoreV1Api(api).list_node())
        if isinstance(found, str):
            yield Finding(f"GPU operator ({name})", "unknown", "nodes cannot be listed", "kubectl get nodes")
            continue
        count = sum(int((node.status.allocatable or {}).get(name, 0)) for node in found.items)
        command = "helm install gpu-operator nvidia/gpu-operator -n gpu-operator --create-namespace"
        yield Finding(f"GPU operator ({name})", "ok" if count else "missing", f"{count} allocatable", command)


def _storage(api: client.ApiClient, placement: Placement, namespace: str) -> Iterator[Finding]:
    core = _K8S.CoreV1Api(api)
    for claim in {*_named(placement, "claim"), *_named(placement, "volume_claim")}:
        found = _ask(lambda name=claim: core.read_namespaced_persistent_volume_claim(name, namespace))
        command = f"kubectl -n {namespace} describe pvc {claim}"
        if isinstance(found, str):
            yield _there(f"claim {claim}", found, "helm upgrade qwenops helm/qwenops --reuse-values")
        elif found.status.phase == "Bound":
            yield Finding(f"claim {claim}", "ok", f"{found.spec.storage_class_name or 'no class'}, Bound")
        else:
            yield Finding(f"claim {claim}", *_unbound(api, found), command)


def _unbound(api: client.ApiClient, claim: Any) -> tuple[State, str]:
    """What a claim without a volume means: one whose class waits for the first pod lacks nothing."""
    phase, name = claim.status.phase, claim.spec.storage_class_name
    if phase != "Pending" or not name:
        return "missing", f"phase {phase}"
    found = _ask(lambda: _K8S.StorageV1Api(api).read_storage_class(name))
    if found == "denied":
        return "unknown", f"phase Pending; class {name} may not be read"
    if found != "absent" and found.volume_binding_mode == "WaitForFirstConsumer":
        return "ok", f"{name}, is bound when the first pod uses it"
    return "missing", f"phase Pending, class {name}" + (" does not exist" if found == "absent" else "")


def _secrets(api: client.ApiClient, placement: Placement, namespace: str) -> Iterator[Finding]:
    names = {place.partition("/")[0] for place in placement.secret_env.values()}
    core = _K8S.CoreV1Api(api)
    for name in sorted(names):
        found = _ask(lambda secret=name: core.read_namespaced_secret(secret, namespace))
        yield _there(
            f"secret {name}", found, f"kubectl -n {namespace} create secret generic {name} --from-file=KEY=FILE"
        )


def _permissions(api: client.ApiClient, namespace: str) -> Iterator[Finding]:
    reviews = _K8S.AuthorizationV1Api(api)
    for group, resource, verbs in RIGHTS:
        denied = [verb for verb in verbs if not _allowed(reviews, namespace, group, resource, verb)]
        name = f"may {', '.join(verbs)} {resource}"
        plain = f"{resource}.{group}" if group else resource
        command = (
            f"kubectl -n {namespace} auth can-i {denied[0] if denied else verbs[0]} {plain}; helm upgrade the chart"
        )
        yield Finding(name, "missing" if denied else "ok", f"denied: {', '.join(denied)}" if denied else "", command)


def _allowed(reviews: Any, namespace: str, group: str, resource: str, verb: str) -> bool:
    kind, _, subresource = resource.partition("/")
    attributes = _K8S.V1ResourceAttributes(
        namespace=namespace, group=group, resource=kind, subresource=subresource or None, verb=verb
    )
    review = _K8S.V1SelfSubjectAccessReview(spec=_K8S.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes))
    return bool(reviews.create_self_subject_access_review(review).status.allowed)


def _image(api: client.ApiClient, placement: Placement, namespace: str, seconds: float) -> Finding:
    core, name = _K8S.CoreV1Api(api), f"qwenops-doctor-{uuid.uuid4().hex[:8]}"
    command = f"docker pull {placement.image}; kubectl -n {namespace} get events --field-selector reason=Failed"
    made = _ask(lambda: core.create_namespaced_pod(namespace, _pod(placement, name)))
    if isinstance(made, str):
        return Finding(f"image {placement.image}", "unknown", "no pod may be created here", command)
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            statuses = core.read_namespaced_pod(name, namespace).status.container_statuses or []
            for status in statuses:
                if status.state.running or status.state.terminated:
                    return Finding(f"image {placement.image}", "ok", status.image_id or "")
                if status.state.waiting and status.state.waiting.reason in _PULL_FAILED:
                    detail = f"{status.state.waiting.reason}: {status.state.waiting.message or ''}"
                    return Finding(f"image {placement.image}", "missing", detail, command)
            time.sleep(_POLL_SECONDS)
        return Finding(f"image {placement.image}", "unknown", f"not pulled within {seconds:.0f} s", command)
    finally:
        _ask(lambda: core.delete_namespaced_pod(name, namespace, grace_period_seconds=0))


def _pod(placement: Placement, name: str) -> Any:
    container = _K8S.V1Container(
        name="pull",
        image=placement.image,
        image_pull_policy=placement.image_pull_policy,
        command=["true"],
        resources=_K8S.V1ResourceRequirements(
            requests={"cpu": "10m", "memory": "32Mi"}, limits={"cpu": "100m", "memory": "64Mi"}
        ),
        security_context=_K8S.V1SecurityContext(
            allow_privilege_escalation=False,
            capabilities=_K8S.V1Capabilities(drop=["ALL"]),
            run_as_non_root=True,
            run_as_user=65532,
            seccomp_profile=_K8S.V1SeccompProfile(type="RuntimeDefault"),
        ),
    )
    secrets = [_K8S.V1LocalObjectReference(name=secret) for secret in _named(placement, "pull_secrets")]
    spec = _K8S.V1PodSpec(
        containers=[container],
        restart_policy="Never",
        automount_service_account_token=False,
        image_pull_secrets=secrets or None,
        active_deadline_seconds=int(_PULL_SECONDS),
    )
    return _K8S.V1Pod(metadata=_K8S.V1ObjectMeta(name=name, labels={"app.kubernetes.io/name": "qwenops"}), spec=spec)


def _there(name: str, found: Any, command: str) -> Finding:
    if found == "absent":
        return Finding(name, "missing", "it does not exist", command)
    return Finding(name, "unknown", "it cannot be read", command) if found == "denied" else Finding(name, "ok")


def _ask(question: Callable[[], Any]) -> Any:
    """The answer, or "absent" (404) or "denied" (403)."""
    try:
        return question()
    except client.ApiException as error:
        if error.status in (403, 404):
            return "denied" if error.status == 403 else "absent"
        raise PlatformError(
            "the API server refused a question",
            expected="an answer",
            found=f"{error.status} {error.reason}",
            action="kubectl cluster-info",
        ) from error


def _named(placement: Placement, field: str) -> list[str]:
    """Every value that the placement gives `field`, at whatever depth (head, worker group, cluster)."""
    found: set[str] = set()
    waiting: list[Any] = [placement.model_dump(mode="json")]
    while waiting:
        value = waiting.pop()
        for key, inner in value.items() if isinstance(value, dict) else ():
            if key == field:
                found.update([inner] if isinstance(inner, str) else inner)
            else:
                waiting.append(inner)
        waiting.extend(value if isinstance(value, list) else ())
    return sorted(name for name in found if name)
