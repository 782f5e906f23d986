"""What the Kubernetes API server and KubeRay refuse of the objects that a launcher makes.

The API server (1.34): `apimachinery/pkg/api/validation/objectmeta.go` (256 KiB of annotations), `util/validation`
(label values of 63 characters), the 1.5 MiB that etcd takes of one request, and for pods
`pkg/apis/core/validation/validation.go` (`ValidatePodSpec`, `validateContainers`, `ValidateResourceRequirements`,
`ValidateVolumeMounts`, `ValidateEnv`). KubeRay 1.7.0: `ray-operator/controllers/ray/utils/validation.go`
(`ValidateRayJobMetadata`, `ValidateRayJobSpec`, `validateDeletionConfiguration`, `ValidateRayClusterSpec`,
`validateRayGroupLabels`, `validateGcsFaultToleranceBackend`), whose refusals stand in the job's status and not in an
answer; feature gates have their defaults of `ray-operator/pkg/features/features.go`. A kernel refuses an argument of
128 KiB, and the entrypoint is one.
"""

import json
import re
from collections.abc import Iterator

from kubernetes.utils import parse_quantity

_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_ANNOTATION_BYTES, _REQUEST_BYTES, _ARGUMENT_BYTES = 256 << 10, 3 << 19, 128 << 10
_LONGEST_RAYJOB = 47


def server_refusals(body: dict) -> Iterator[tuple[int, str]]:
    """(HTTP status, message) of everything that the API server has against an object."""
    if len(json.dumps(body)) > _REQUEST_BYTES:
        yield 413, "etcdserver: request is too large"
    meta = body["metadata"]
    for key, value in meta.get("labels", {}).items():
        if not _LABEL.fullmatch(value):
            yield (
                422,
                f"metadata.labels: Invalid value: {value!r} of {key}: a valid label must be 63 characters or less",
            )
    if sum(len(key) + len(value) for key, value in meta.get("annotations", {}).items()) > _ANNOTATION_BYTES:
        yield 422, f"metadata.annotations: Too long: may not be more than {_ANNOTATION_BYTES} bytes"


def kuberay_refusals(job: dict) -> Iterator[str]:
    """What the operator has against a RayJob that the server took; the real one says the first alone."""
    name, spec = job["metadata"]["name"], job["spec"]
    if len(name) > _LONGEST_RAYJOB:
        yield f"RayJob name should be no more than {_LONGEST_RAYJOB} characters"
    if not _DNS_1035.fullmatch(name):
        yield "RayJob name should be a valid DNS1035 label"
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        yield "a RayJob with shutdownAfterJobFinishes set to false is not allowed to be suspended"
    if spec.get("ttlSecondsAfterFinished", 0) > 0 and not spec.get("shutdownAfterJobFinishes"):
        yield "a RayJob with shutdownAfterJobFinishes set to false cannot have TTLSecondsAfterFinished"
    if "rayClusterSpec" not in spec and not spec.get("clusterSelector"):
        yield "one of RayClusterSpec or ClusterSelector must be set"
    for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(field, 1) <= 0:
            yield f"{field} must be a positive integer"
    for field in ("ttlSecondsAfterFinished", "backoffLimit"):
        if spec.get(field, 0) < 0:
            yield f"{field} must be a non-negative integer"
    cluster = spec.get("rayClusterSpec", {})
    if spec.get("submissionMode") == "SidecarMode":
        for field in ("submitterPodTemplate", "submitterConfig"):
            if field in spec:
                yield f"SidecarMode doesn't support {field}"
        if _restart_policy(cluster.get("headGroupSpec", {})) not in (None, "Never"):
            yield "restartPolicy for head Pod should be Never or unset when using SidecarMode"
    yield from _cluster_refusals(cluster)
    if len(spec.get("entrypoint", "").encode()) > _ARGUMENT_BYTES:
        yield "the entrypoint is longer than an argument may be"


def _cluster_refusals(cluster: dict) -> Iterator[str]:
    """`ValidateRayClusterSpec`, as far as a launcher's manifests reach."""
    head, autoscaled = cluster.get("headGroupSpec", {}), cluster.get("enableInTreeAutoscaling")
    for group in [head] * bool(cluster) + cluster.get("workerGroupSpecs", []):
        name = group.get("groupName", "Head")
        if not group.get("template", {}).get("spec", {}).get("containers"):
            yield f"{name} should have at least one container"
        if "labels" in group.get("rayStartParams", {}):
            yield f"rayStartParams['labels'] is not supported for {name} group"
        v2 = autoscaled and cluster.get("autoscalerOptions", {}).get("version") == "v2"
        if v2 and _restart_policy(group) not in (None, "Never"):
            yield f"restartPolicy for {name} should be Never or unset when using autoscaler V2"
    for group in cluster.get("workerGroupSpecs", []):
        least, most = group.get("minReplicas"), group.get("maxReplicas")
        if not autoscaled and (least is None or most is None):
            yield f"worker group {group['groupName']} must set both minReplicas and maxReplicas"
        if (least or 0) < 0 or (most is not None and most < (least or 0)):
            yield f"worker group {group['groupName']} has minReplicas {least} greater than maxReplicas {most}"
    variables = {item["name"] for item in _containers(head)[:1] for item in item.get("env", [])}
    recovery = cluster.get("gcsFaultToleranceOptions")
    if "RAY_REDIS_ADDRESS" in variables:
        yield "RAY_REDIS_ADDRESS is set: GcsFaultToleranceOptions is the place for it"
    if recovery is not None and "REDIS_PASSWORD" in variables:
        yield "cannot set `REDIS_PASSWORD` env var in head Pod when GcsFaultToleranceOptions is enabled"
    if recovery and recovery.get("backend") == "rocksdb":
        yield "the embedded RocksDB backend requires the GCSFaultToleranceEmbeddedStorage feature gate to be enabled"
    if recovery and recovery.get("backend", "redis") == "redis" and "storage" in recovery:
        yield "cannot set GcsFaultToleranceOptions.Storage when backend is 'redis'"
    auth, version = cluster.get("authOptions", {}), cluster.get("rayVersion", "")
    if auth.get("mode") == "token" and tuple(map(int, version.split(".")[:2] if version else (0,))) < (2, 52):
        yield f"authOptions.mode is 'token' but minimum Ray version is 2.52.0, got {version}"
    if auth.get("enableK8sTokenAuth"):
        yield "K8s token auth mode is currently not supported for RayJob"


def pod_refusals(spec: dict) -> Iterator[str]:
    """What the API server has against a pod of this spec, whoever makes it."""
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    names = [container["name"] for container in [*spec.get("initContainers", []), *spec["containers"]]]
    if len(set(names)) < len(names):
        yield "spec.containers.name: Duplicate value"
    if spec.get("activeDeadlineSeconds", 1) < 1:
        yield "spec.activeDeadlineSeconds: must be greater than 0"
    for name in [*names, *volumes]:
        if not _DNS_1123.fullmatch(name):
            yield f"{name}: a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'"
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        where = container["name"]
        if not container.get("image"):
            yield f"{where}.image: Required value"
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"{where}.volumeMounts: Not found: {mount['name']}"
            if ".." in mount.get("subPath", "").split("/") or mount.get("subPath", "").startswith("/"):
                yield f"{where}.volumeMounts.subPath: must be a relative path without '..'"
        paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
        if len(set(paths)) < len(paths):
            yield f"{where}.volumeMounts.mountPath: Invalid value: must be unique"
        for variable in container.get("env", []):
            if not _VARIABLE.fullmatch(variable["name"]):
                yield f"{where}.env: Invalid value: {variable['name']}"
            if "value" in variable and not isinstance(variable["value"], str):
                yield f"{where}.env.value: must be of type string"
        yield from _resource_refusals(where, container.get("resources", {}))


def _resource_refusals(where: str, resources: dict) -> Iterator[str]:
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    for name in {*requests, *limits}:
        wanted, most = requests.get(name), limits.get(name)
        extended = "/" in name
        if extended and most is None:
            yield f"{where}.resources.limits: Limit must be set for non overcommitable resources ({name})"
        if wanted is not None and most is not None:
            if parse_quantity(wanted) > parse_quantity(most):
                yield f"{where}.resources.requests: must be less than or equal to {name} limit"
            if extended and parse_quantity(wanted) != parse_quantity(most):
                yield f"{where}.resources.requests: must be equal to {name} limit of {most}"
        if extended and most is not None and parse_quantity(most) % 1:
            yield f"{where}.resources.limits: {name} must be an integer"


def _containers(group: dict) -> list[dict]:
    return group.get("template", {}).get("spec", {}).get("containers", [])


def _restart_policy(group: dict) -> str | None:
    return group.get("template", {}).get("spec", {}).get("restartPolicy")
