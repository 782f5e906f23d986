"""Objects have what the API server gives of those that it has stored: metadata, spec and status."""

from datetime import datetime
from typing import Any, Literal, overload

from kubernetes.client.rest import ApiException as ApiException
from kubernetes.client.rest import RESTClientObject
from urllib3 import HTTPResponse

Timeout = tuple[float, float] | float

class Configuration: ...

class ApiClient:
    rest_client: RESTClientObject
    def __init__(self, configuration: Configuration | None = ...) -> None: ...

class V1OwnerReference:
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None

class V1ObjectMeta:
    name: str
    uid: str
    owner_references: list[V1OwnerReference] | None

class V1ContainerPort:
    container_port: int
    name: str | None

class V1Container:
    name: str
    ports: list[V1ContainerPort] | None

class V1PodSpec:
    containers: list[V1Container]

class V1PodCondition:
    type: str
    status: str

class V1ContainerState:
    terminated: object | None

class V1ContainerStatus:
    name: str
    state: V1ContainerState

class V1PodStatus:
    phase: str
    pod_ip: str | None
    conditions: list[V1PodCondition] | None
    container_statuses: list[V1ContainerStatus] | None

class V1Pod:
    metadata: V1ObjectMeta
    spec: V1PodSpec
    status: V1PodStatus

class V1PodList:
    items: list[V1Pod]

class V1ObjectReference:
    name: str | None

class CoreV1Event:
    involved_object: V1ObjectReference
    type: str | None
    reason: str | None
    message: str | None
    last_timestamp: datetime | None
    event_time: datetime | None

class CoreV1EventList:
    items: list[CoreV1Event]

class V1DeleteOptions:
    def __init__(self, *, propagation_policy: Literal["Foreground", "Background", "Orphan"]) -> None: ...

class CoreV1Api:
    def __init__(self, api_client: ApiClient) -> None: ...
    def read_namespaced_pod(self, name: str, namespace: str, *, _request_timeout: Timeout = ...) -> V1Pod: ...
    def list_namespaced_pod(
        self, namespace: str, *, label_selector: str = ..., _request_timeout: Timeout = ...
    ) -> V1PodList: ...
    def list_namespaced_event(self, namespace: str, *, _request_timeout: Timeout = ...) -> CoreV1EventList: ...
    @overload
    def read_namespaced_pod_log(
        self,
        name: str,
        namespace: str,
        *,
        container: str = ...,
        follow: bool = ...,
        timestamps: bool = ...,
        since_seconds: int = ...,
        _preload_content: Literal[False],
        _request_timeout: Timeout = ...,
    ) -> HTTPResponse: ...
    @overload
    def read_namespaced_pod_log(self, name: str, namespace: str) -> str: ...

class CustomObjectsApi:
    """Its objects are JSON of a kind that the arguments say."""

    def __init__(self, api_client: ApiClient) -> None: ...
    def create_namespaced_custom_object(
        self, group: str, version: str, namespace: str, plural: str, body: dict[str, Any], **options: Any
    ) -> dict[str, Any]: ...
    def get_namespaced_custom_object(
        self, group: str, version: str, namespace: str, plural: str, name: str, **options: Any
    ) -> Any: ...
    def patch_namespaced_custom_object(
        self, group: str, version: str, namespace: str, plural: str, name: str, body: object, **kwargs: Any
    ) -> object: ...
    def list_namespaced_custom_object(
        self, group: str, version: str, namespace: str, plural: str, **options: Any
    ) -> dict[str, Any]: ...
    def delete_namespaced_custom_object(
        self,
        group: str,
        version: str,
        namespace: str,
        plural: str,
        name: str,
        body: V1DeleteOptions | None = ...,
        **options: Any,
    ) -> dict[str, Any]: ...
