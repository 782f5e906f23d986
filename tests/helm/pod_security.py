"""The `restricted` profile of Kubernetes' Pod Security Standards, as far as a pod's fields decide it.

https://kubernetes.io/docs/concepts/security/pod-security-standards/. A namespace that enforces it refuses a pod that
breaks one of these rules; the cluster suite lets a real API server say the same.
"""

from collections.abc import Iterator
from typing import Any

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def violations(spec: dict[str, Any]) -> Iterator[str]:
    """What keeps a pod out of a restricted namespace."""
    pod = spec.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield field
    for volume in spec.get("volumes", []):
        if not _VOLUMES & set(volume):
            yield f"volume {volume['name']} is none of {', '.join(sorted(_VOLUMES))}"
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        for fault in _of_container(container, pod):
            yield f"{container['name']}: {fault}"


def _of_container(container: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    both = pod | own
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if own.get("privileged"):
        yield "privileged"
    if "ALL" not in own.get("capabilities", {}).get("drop", []):
        yield "capabilities.drop lacks ALL"
    if set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities.add"
    if both.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if both.get("runAsUser") == 0:
        yield "runAsUser is 0"
    if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile.type"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"
