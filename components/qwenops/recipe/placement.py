"""`Placement`: where and how a pipeline runs. It never enters a fingerprint, by construction: no recipe holds one."""

from typing import Literal

from pydantic import Field

from qwenops.recipe.config import Config


class Resources(Config):
    """What the tasks of one area ask for."""

    cpu: str = Field("1", description="CPU request of a task, Kubernetes notation.")
    memory: str = Field("4G", description="Memory request of a task, Kubernetes notation.")
    accelerator: str = Field(
        "", description="Resource name of an accelerator, for example nvidia.com/gpu; empty for none."
    )
    num_accelerators: int = Field(0, ge=0, description="Accelerators a task asks for.")


class Toleration(Config):
    """One toleration of a node taint."""

    key: str = Field(description="Taint key.")
    value: str = Field("", description="Taint value; empty tolerates any value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = Field("NoSchedule", description="Taint effect.")


class Placement(Config):
    """Images, resources, nodes, storage and secret names of one place to run."""

    name: str = Field(description="Name of the placement, as given to --placement.")
    image: str = Field(description="Image of every task, pinned by digest on a cluster.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="Pull policy.")
    artifact_root: str = Field(
        "", description="Folder of the artifacts inside a task; empty leaves it to `qwenops run`."
    )
    cache_root: str = Field("", description="Folder of downloads inside a task; empty leaves it to `qwenops run`.")
    volume_claim: str = Field("", description="PersistentVolumeClaim mounted at `volume_mount`; empty for none.")
    volume_mount: str = Field("/mnt/qwenops", description="Where the claim is mounted.")
    tracking_uri: str = Field("", description="MLflow tracking URI seen from a task; empty leaves it to `qwenops run`.")
    ray_address: str = Field("", description="Address of a running Ray; empty starts a local one in the task.")
    num_workers: int = Field(0, ge=0, description="Ray Train workers; 0 trains in the task's own process.")
    resources: dict[str, Resources] = Field(default_factory=dict, description="Area name to its tasks' resources.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Node labels every task asks for.")
    tolerations: tuple[Toleration, ...] = Field((), description="Taints every task tolerates.")
    secret_env: dict[str, str] = Field(
        default_factory=dict, description="Environment variable to `secret-name/key`; names only, never values."
    )
    accelerator_hour_price: float = Field(
        0.0, ge=0, description="Price of one accelerator for one hour, any currency, for `plan`; 0 is unknown."
    )
    retries: int = Field(0, ge=0, description="Times KFP retries a failed task.")
