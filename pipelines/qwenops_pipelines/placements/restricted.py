"""The security context of Ray pods that a namespace under Kubernetes' `restricted` Pod Security Standard admits.

It stands on the container, so that the init container KubeRay adds to workers copies it. The images run as user 1000;
one that runs as root is refused by the kubelet until the group says otherwise.
"""

from typing import Any

RESTRICTED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
