"""The few calls a launcher makes to the Kubernetes API, each of which outlives an outage of the API server.

Every call is repeated with growing pauses while the server answers 429 or 5xx or does not answer; after the
outage budget it is a `PlatformError`. Following an object starts from a list of that one object and goes on as a watch
from the list's resource version; a dropped stream, a 410 or a restarted server leads back to it, so no state is missed.
The object's own version would not do: it is that of its last change, and a server that was restarted, or has seen many
changes of other objects since, no longer watches from there.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from urllib3.exceptions import HTTPError

from qwenops.errors import PlatformError
from qwenops.platform.kubernetes.errors import explain
from qwenops.platform.kubernetes.objects import Json, RayJob

GROUP, VERSION, PLURAL = "ray.io", "v1", "rayjobs"
ARGO = "argoproj.io"
"""API group of the Workflow that a run of Kubeflow is."""
RIGHTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (GROUP, PLURAL, ("create", "get", "list", "watch", "patch", "delete")),
    ("", "pods", ("get", "list")),
    ("", "pods/log", ("get",)),
    ("", "events", ("list",)),
    (ARGO, "workflows", ("get",)),
)
"""Every right a step needs, in its own namespace: (API group, resource, verbs). The chart's role grants these."""
TRANSIENT = (ApiException, HTTPError, OSError)
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""File in a pod that holds its namespace."""
_RETRIED = {0, 408, 429, 500, 502, 503, 504}
_GONE = 410
_CONNECT_SECONDS, _READ_SECONDS = 5, 30
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 15.0
T = TypeVar("T")


@dataclass
class RetryBudget:
    """Growing pauses within a budget of seconds without one success."""

    budget_seconds: float
    pause: float = _FIRST_PAUSE
    began: float = 0.0

    def wait(self, error: BaseException, what: str) -> None:
        """Pause after `error`.

        Raises:
            PlatformError: the budget is used up.
        """
        now = time.monotonic()
        self.began = self.began or now
        if now - self.began > self.budget_seconds:
            raise PlatformError(
                f"the Kubernetes API server did not answer while trying to {what}",
                expected=f"an answer within {self.budget_seconds:.0f} s",
                found=str(error).splitlines()[0] if str(error) else type(error).__name__,
                action="look at the control plane; a retry of the step adopts the job that is running",
            ) from error
        time.sleep(max(_retry_after(error), self.pause * random.uniform(0.5, 1.0)))
        self.pause = min(self.pause * 2, _LONGEST_PAUSE)

    def reset(self) -> None:
        """A call succeeded: the next outage starts anew."""
        self.pause, self.began = _FIRST_PAUSE, 0.0


class Kube:
    """RayJobs, pods, events and logs of one namespace.

    Args:
        api: Client of the official library.
        namespace: Where all objects live.
        outage_seconds: Longest outage that is sat out.
        watch_seconds: Longest watch before the object is read again, so that a silent stream cannot hide a change.
    """

    def __init__(
        self, api: client.ApiClient, namespace: str, *, outage_seconds: float = 600, watch_seconds: int = 15
    ) -> None:
        # urllib3's own retries know nothing of the budget.
        api.rest_client.pool_manager.connection_pool_kw["retries"] = False
        self.namespace = namespace
        self.core = client.CoreV1Api(api)
        self._objects = client.CustomObjectsApi(api)
        self._outage_seconds, self._watch_seconds = outage_seconds, watch_seconds

    def hurry(self, seconds: float) -> None:
        """From now on sit out no outage longer than `seconds`: this process is being ended."""
        self._outage_seconds = min(self._outage_seconds, seconds)

    def create_job(self, manifest: Json) -> bool:
        """Create a RayJob; False when one of that name exists."""
        try:
            self._call("create rayjobs", self._objects.create_namespaced_custom_object, *self._place(), manifest)
        except ApiException as error:
            if error.status == 409:
                return False
            raise explain(error, "create rayjobs", self.namespace) from error
        return True

    def job(self, name: str) -> RayJob | None:
        """The RayJob `name`; None when there is none."""
        return self._optional("get rayjobs", self._objects.get_namespaced_custom_object, *self._place(), name)

    def jobs(self, selector: str) -> list[RayJob]:
        """RayJobs whose labels match `selector`."""
        listed = self._known(
            "list rayjobs", self._objects.list_namespaced_custom_object, *self._place(), label_selector=selector
        )
        return listed["items"]

    def delete_job(self, name: str, *, wait_seconds: float) -> bool:
        """Delete a RayJob with all that belongs to it; True once it is gone, False if it lingers after the wait.

        Foreground: the object stays until its cluster's pods are gone, so a gone job writes no more.
        """
        body = client.V1DeleteOptions(propagation_policy="Foreground")
        self._optional("delete rayjobs", self._objects.delete_namespaced_custom_object, *self._place(), name, body=body)
        deadline, pause = time.monotonic() + wait_seconds, 0.05
        while self.job(name) is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 2, 2.0)
        return True

    def suspend_job(self, name: str, mark: str) -> bool:
        """Have KubeRay give back what a job holds, by one small write; False when there is no such job.

        Args:
            name: The job.
            mark: An annotation, set by the same write, that tells this from a queue's suspension.
        """
        body: Json = {"metadata": {"annotations": {mark: "yes"}}, "spec": {"suspend": True}}
        patch = self._objects.patch_namespaced_custom_object
        return self._optional("patch rayjobs", patch, *self._place(), name, body) is not None

    def follow_job(self, name: str) -> Iterator[RayJob | None]:
        """Every state of a RayJob that is seen, one per `watch_seconds` or more; ends with None once it is gone."""
        patience = RetryBudget(self._outage_seconds)
        while True:
            listed = self._known(
                "list rayjobs",
                self._objects.list_namespaced_custom_object,
                *self._place(),
                field_selector=f"metadata.name={name}",
            )
            job: RayJob | None = next(iter(listed["items"]), None)
            yield job
            if job is None:
                return
            try:
                yield from self._watch_job(name, listed["metadata"]["resourceVersion"])
                patience.reset()
            except TRANSIENT as error:
                if isinstance(error, ApiException) and error.status not in _RETRIED | {_GONE}:
                    raise explain(error, "watch rayjobs", self.namespace) from error
                patience.wait(error, "watch rayjobs")

    def pod(self, name: str) -> client.V1Pod | None:
        """The pod `name`; None when there is none."""
        return self._optional("get pods", self.core.read_namespaced_pod, name, self.namespace)

    def pods(self, selector: str) -> list[client.V1Pod]:
        """Pods whose labels match `selector`."""
        return self._known("list pods", self.core.list_namespaced_pod, self.namespace, label_selector=selector).items

    def workflow(self, name: str) -> Json | None:
        """The Argo Workflow `name`; None when there is none."""
        place = (ARGO, "v1alpha1", self.namespace, "workflows", name)
        return self._optional("get workflows", self._objects.get_namespaced_custom_object, *place)

    def events(self, prefixes: tuple[str, ...], most: int = 8) -> list[str]:
        """The newest events of objects whose name starts with one of `prefixes`, one line each, oldest first."""
        found = self._known("list events", self.core.list_namespaced_event, self.namespace).items
        ours = [event for event in found if (event.involved_object.name or "").startswith(prefixes)]
        # Warnings first: a failed mount must not be pushed out by eight pods that were scheduled.
        ours.sort(key=lambda event: (event.type == "Warning", str(event.last_timestamp or event.event_time or "")))
        return [f"{e.type} {e.reason} {e.involved_object.name}: {(e.message or '').strip()}" for e in ours[-most:]]

    def _watch_job(self, name: str, version: str) -> Iterator[RayJob]:
        stream = watch.Watch().stream(
            self._objects.list_namespaced_custom_object,
            *self._place(),
            field_selector=f"metadata.name={name}",
            resource_version=version,
            timeout_seconds=self._watch_seconds,
            _request_timeout=(_CONNECT_SECONDS, self._watch_seconds + _CONNECT_SECONDS),
        )
        for event in stream:
            if event["type"] == "DELETED":
                return
            if event["type"] in ("ADDED", "MODIFIED"):
                yield event["object"]

    def _place(self) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self.namespace, PLURAL

    def _known(self, what: str, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        try:
            return self._call(what, function, *arguments, **options)
        except ApiException as error:
            raise explain(error, what, self.namespace) from error

    def _optional(self, what: str, function: Callable[..., T], *arguments: Any, **options: Any) -> T | None:
        try:
            return self._call(what, function, *arguments, **options)
        except ApiException as error:
            if error.status == 404:
                return None
            raise explain(error, what, self.namespace) from error

    def _call(self, what: str, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        patience = RetryBudget(self._outage_seconds)
        while True:
            try:
                return function(*arguments, **options, _request_timeout=(_CONNECT_SECONDS, _READ_SECONDS))
            except TRANSIENT as error:
                if isinstance(error, ApiException) and error.status not in _RETRIED:
                    raise
                patience.wait(error, what)


def connect(kubeconfig: str, namespace: str, *, outage_seconds: float = 600, watch_seconds: int = 15) -> Kube:
    """A client by the pod's service account, or by a kubeconfig file where one is named.

    Args:
        kubeconfig: Path of a kubeconfig; empty inside a cluster.
        namespace: Namespace to work in; empty takes the service account's, or the kubeconfig's.
        outage_seconds: Longest outage of the API server that is sat out.
        watch_seconds: Longest watch between two reads.

    Raises:
        PlatformError: there is neither a service account nor a readable kubeconfig.
    """
    settings = client.Configuration()
    try:
        if kubeconfig:
            config.load_kube_config(kubeconfig, client_configuration=settings)
            _, active = config.list_kube_config_contexts(kubeconfig)
            namespace = namespace or active["context"].get("namespace", "default")
        else:
            config.load_incluster_config(client_configuration=settings)
            namespace = namespace or SERVICE_ACCOUNT.read_text(encoding="utf-8").strip()
    except (config.ConfigException, OSError) as error:
        raise PlatformError(
            "this process cannot reach a Kubernetes API server",
            expected="a pod with a service account token, or QWENOPS_KUBECONFIG",
            found=error,
            action="set automountServiceAccountToken for the step's service account, or name a kubeconfig",
        ) from error
    return Kube(client.ApiClient(settings), namespace, outage_seconds=outage_seconds, watch_seconds=watch_seconds)


def _retry_after(error: BaseException) -> float:
    if isinstance(error, ApiException) and error.headers:
        with suppress(ValueError):
            return float(error.headers.get("Retry-After") or 0)
    return 0.0
