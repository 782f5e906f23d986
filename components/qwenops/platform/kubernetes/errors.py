"""What an answer of the Kubernetes API server means for whoever operates the run."""

import json
from collections.abc import Mapping

from kubernetes.client.rest import ApiException

from qwenops.errors import PlatformError
from qwenops.recipe.codec import Plain


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


def _status(error: ApiException) -> Mapping[str, Plain]:
    """The API server's `Status`, or whatever else somebody between it and us has answered."""
    try:
        body: Plain = json.loads(error.body or "{}")
    except ValueError:
        return {"message": error.body}
    return body if isinstance(body, Mapping) else {}


def _causes(body: Mapping[str, Plain]) -> list[str]:
    details = body.get("details")
    causes = details.get("causes") if isinstance(details, Mapping) else None
    listed = causes if isinstance(causes, list) else []
    return [f"{one.get('field', '?')}: {one.get('message', '')}" for one in listed if isinstance(one, Mapping)]
