"""What an answer of the Kubernetes API server means for whoever operates the run."""

import json
from typing import Any

from kubernetes.client.rest import ApiException

from qwenops.errors import PlatformError


def explain(error: ApiException, what: str, namespace: str) -> PlatformError:
    """A refused call as a `PlatformError` that says which permission, field or quota is at fault.

    Args:
        error: The answer.
        what: Verb and resource, for example "create rayjobs".
        namespace: Where it was tried.
    """
    body = _status(error)
    message = str(body.get("message") or error.reason or error.status)
    if error.status in (401, 403) and "quota" not in message:
        return PlatformError(
            f"not allowed to {what} in namespace {namespace}",
            expected=f"a service account that may {what}",
            found=f"{error.status}: {message}",
            action=f"grant it, as the chart's role does; check: kubectl auth can-i {what} -n {namespace} --as ACCOUNT",
        )
    if error.status == 403:
        return PlatformError(
            f"a quota of namespace {namespace} forbids to {what}",
            expected="free quota",
            found=message,
            action="wait, or raise the ResourceQuota",
        )
    if error.status == 404:
        return PlatformError(
            f"the cluster does not know how to {what}",
            expected="the custom resources of KubeRay, ray.io/v1",
            found=message,
            action="install the KubeRay operator with its CRDs",
        )
    return PlatformError(
        f"the Kubernetes API server refused to {what}",
        expected="a manifest the server accepts",
        found="; ".join(_causes(body)) or f"{error.status}: {message}",
        action="correct the named field of the placement",
    )


def _status(error: ApiException) -> dict[str, Any]:
    try:
        body = json.loads(error.body or "{}")
    except ValueError:
        return {"message": str(error.body)}
    return body if isinstance(body, dict) else {}


def _causes(body: dict[str, Any]) -> list[str]:
    details = body.get("details") or {}
    return [f"{cause.get('field', '?')}: {cause.get('message', '')}" for cause in details.get("causes") or []]
