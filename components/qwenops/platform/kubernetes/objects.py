"""What this room reads of the objects that the API server gives as JSON, under Kubernetes' and KubeRay's own names."""

from typing import Any, NotRequired, TypedDict

Json = dict[str, Any]
"""A manifest, or a part of one."""


class ObjectMeta(TypedDict):
    """Who an object is."""

    name: str
    creationTimestamp: str
    deletionTimestamp: NotRequired[str]
    labels: NotRequired[dict[str, str]]
    annotations: NotRequired[dict[str, str]]


class RayJobSpec(TypedDict, total=False):
    """What of a RayJob's spec changes after it was written."""

    suspend: bool


class RayJobStatus(TypedDict, total=False):
    """What KubeRay says of a job; a field that it has not filled is missing or empty."""

    jobDeploymentStatus: str
    jobStatus: str
    jobId: str
    rayClusterName: str
    reason: str
    message: str
    startTime: str


class RayJob(TypedDict):
    """A RayJob."""

    metadata: ObjectMeta
    spec: RayJobSpec
    status: NotRequired[RayJobStatus]
