"""`Pod`: everything a placement says about a pod, whether it is a Kubeflow step, a Ray head or a Ray worker.

Three parts are plain Kubernetes JSON (`affinity`, `security_context`, `pod_security_context`): they pass through
untouched, and the API server checks them against a schema that this project would only repeat.
"""

from typing import Any, Literal

from pydantic import Field, model_validator

from qwenops.recipe.config import Config

PART_OF = {"app.kubernetes.io/part-of": "qwenops"}
"""Label of every pod of a run, step or Ray; the chart's network policies find them by it in a namespace of others."""


class Resources(Config):
    """What one container asks for."""

    cpu: str = Field(default="1", description="CPU request, Kubernetes notation.")
    memory: str = Field(default="4G", description="Memory request and limit, Kubernetes notation.")
    accelerator: str = Field(
        default="", description="Resource name of an accelerator, for example nvidia.com/gpu; empty for none."
    )
    num_accelerators: int = Field(default=0, ge=0, description="Accelerators the container asks for.")


class Toleration(Config):
    """One toleration of a node taint."""

    key: str = Field(description="Taint key.")
    value: str = Field(default="", description="Taint value; empty tolerates any value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        default="NoSchedule", description="Taint effect."
    )


class Volume(Config):
    """One mounted volume; exactly one source is named."""

    mount_path: str = Field(pattern="^/", description="Where the volume appears in the container.")
    claim: str = Field(default="", description="Name of a PersistentVolumeClaim.")
    host_path: str = Field(
        default="", description="Folder of the node; Ray pods only, Kubeflow steps cannot mount one."
    )
    sub_path: str = Field(default="", description="Folder inside the volume; empty mounts its root.")

    @model_validator(mode="after")
    def _one_source(self) -> "Volume":
        if bool(self.claim) == bool(self.host_path):
            raise ValueError("exactly one of claim and host_path")
        return self


class Pod(Config):
    """How a pod is made: image, identity, node, storage, environment."""

    image: str = Field(default="", description="Image, pinned by digest on a cluster; empty takes the placement's.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="Pull policy."
    )
    pull_secrets: tuple[str, ...] = Field(default=(), description="Names of the registry secrets.")
    service_account: str = Field(
        default="",
        description="Service account of Ray pods; empty for the namespace's default. A Kubeflow run sets its own.",
    )
    labels: dict[str, str] = Field(default_factory=dict, description="Labels added to the pod.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Annotations added to the pod.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Node labels the pod asks for.")
    tolerations: tuple[Toleration, ...] = Field(default=(), description="Taints the pod tolerates.")
    affinity: dict[str, Any] = Field(
        default_factory=dict, description="Kubernetes affinity; a Kubeflow step takes its nodeAffinity only."
    )
    priority_class: str = Field(default="", description="Priority class of Ray pods; empty for the cluster's default.")
    runtime_class: str = Field(default="", description="Runtime class of Ray pods; empty for the cluster's default.")
    volumes: dict[str, Volume] = Field(default_factory=dict, description="Volume name to what is mounted where.")
    shm_size: str = Field(
        default="", description="Size of a memory-backed /dev/shm; empty leaves the runtime's default."
    )
    env: dict[str, str] = Field(default_factory=dict, description="Environment variables; nothing secret.")
    secret_env: dict[str, str] = Field(
        default_factory=dict, description="Environment variable to `secret-name/key`; names only, never values."
    )
    security_context: dict[str, Any] = Field(
        default_factory=dict,
        description="Kubernetes security context of the container; a Kubeflow step takes its user and group fields.",
    )
    pod_security_context: dict[str, Any] = Field(
        default_factory=dict, description="Kubernetes security context of Ray pods, for example fsGroup."
    )
