"""What the Kubernetes API server and KubeRay refuse of the objects that a launcher makes.

The API server (1.34): `apimachinery/pkg/api/validation/objectmeta.go` (256 KiB of annotations), `util/validation`
(label values of 63 characters), and the 1.5 MiB that etcd takes of one request. KubeRay 1.7.0:
`ray-operator/controllers/ray/utils/validation.go` (`ValidateRayJobMetadata`, `ValidateRayJobSpec`,
`ValidateRayClusterSpec`), whose refusals stand in the job's status and not in an answer; a kernel refuses an argument
of 128 KiB, and the entrypoint is one.
"""

import json
import re
from collections.abc import Iterator

_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
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
    """What the operator has against a RayJob that the server took."""
    name, spec = job["metadata"]["name"], job["spec"]
    if len(name) > _LONGEST_RAYJOB:
        yield f"RayJob name should be no more than {_LONGEST_RAYJOB} characters"
    if not _DNS_1035.fullmatch(name):
        yield "RayJob name should be a valid DNS1035 label"
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        yield "a RayJob with shutdownAfterJobFinishes set to false is not allowed to be suspended"
    if "rayClusterSpec" not in spec and not spec.get("clusterSelector"):
        yield "one of RayClusterSpec or ClusterSelector must be set"
    for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(field, 1) <= 0:
            yield f"{field} must be a positive integer"
    for field in ("ttlSecondsAfterFinished", "backoffLimit"):
        if spec.get(field, 0) < 0:
            yield f"{field} must be a non-negative integer"
    cluster = spec.get("rayClusterSpec", {})
    for group in cluster.get("workerGroupSpecs", []):
        least, most = group.get("minReplicas"), group.get("maxReplicas")
        if not cluster.get("enableInTreeAutoscaling") and (least is None or most is None):
            yield f"worker group {group['groupName']} must set both minReplicas and maxReplicas"
        if (least or 0) < 0 or (most is not None and most < (least or 0)):
            yield f"worker group {group['groupName']} has minReplicas {least} greater than maxReplicas {most}"
    if len(spec.get("entrypoint", "").encode()) > _ARGUMENT_BYTES:
        yield "the entrypoint is longer than an argument may be"
