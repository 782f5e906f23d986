"""`Placement`: where and how a pipeline runs. It never enters a fingerprint, by construction: no recipe holds one.

An area named in `launchers` runs each of its stages as a RayJob on the cluster it names there; every other area
runs in the Kubeflow step's own pod. A head or worker group starts from the placement's pod and replaces the
fields it sets, so that image, volumes and secrets are written once.
"""

from typing import Literal, TypeVar

from pydantic import Field, model_validator

from qwenops.recipe.addresses import check_path, check_store
from qwenops.recipe.config import Config
from qwenops.recipe.mesh import ParallelConfig
from qwenops.recipe.pods import Pod, Resources, Toleration, Volume
from qwenops.recipe.prices import Prices

__all__ = ["GcsFaultTolerance", "Placement", "Pod", "RayCluster", "RayGroup", "Resources", "Toleration", "Volume"]

P = TypeVar("P", bound=Pod)
# The first Ray that knows token authentication, as KubeRay asks for it.
_RAY_WITH_TOKENS = (2, 52)
# House choice: a step looks at its job every few seconds, and then reads the log to its end.
_LOG_SECONDS = 10


class RayGroup(Pod):
    """The pods of one kind in a Ray cluster; a field that is set replaces the placement's."""

    resources: Resources = Field(default=Resources(), description="What each pod asks for.")
    limit_cpu: bool = Field(default=False, description="Whether the CPU request is a limit too.")
    replicas: int = Field(default=1, ge=0, description="Worker pods at the start; a head is always one.")
    min_replicas: int | None = Field(
        default=None, ge=0, description="Fewest worker pods under autoscaling; None: `replicas`."
    )
    max_replicas: int | None = Field(
        default=None, ge=1, description="Most worker pods under autoscaling; None: `replicas`."
    )
    ray_start_params: dict[str, str] = Field(default_factory=dict, description="Arguments of `ray start`.")

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "RayGroup":
        most = self.replicas if self.max_replicas is None else self.max_replicas
        if not (self.min_replicas or 0) <= self.replicas <= most:
            raise ValueError("min_replicas <= replicas <= max_replicas")
        return self


class GcsFaultTolerance(Config):
    """Where the head keeps its state, so that a new head goes on with the old one's."""

    redis_address: str = Field(default="", description="Address of a Redis server; empty keeps the state on `claim`.")
    redis_password: str = Field(default="", description="`secret-name/key` of its password; empty for none.")
    claim: str = Field(
        default="",
        description="PersistentVolumeClaim for RocksDB, where no Redis is named; needs KubeRay's feature gate "
        "GCSFaultToleranceEmbeddedStorage.",
    )

    @model_validator(mode="after")
    def _one_backend(self) -> "GcsFaultTolerance":
        if bool(self.redis_address) == bool(self.claim):
            raise ValueError("exactly one of redis_address and claim")
        return self


class RayCluster(Config):
    """The Ray cluster of one stage and the job that runs it: pods, deadlines, queue, retries."""

    head: RayGroup = Field(default=RayGroup(), description="The head pod; the stage's driver runs in it.")
    workers: dict[str, RayGroup] = Field(default_factory=dict, description="Worker group name to its pods.")
    submitter: RayGroup = Field(
        default=RayGroup(resources=Resources(cpu="100m", memory="512Mi")),
        description="The pod that submits the job and prints the driver's log, in K8sJobMode.",
    )
    submitter_retries: int = Field(default=2, ge=0, description="Times a failed submitter pod is started again.")
    num_workers: int = Field(default=0, ge=0, description="Ray Train workers; 0 trains in the driver's own process.")
    mesh: ParallelConfig = Field(
        default=ParallelConfig(), description="How these workers divide a model in pre-training."
    )
    ray_version: str = Field(default="2.60.0", description="Ray version in the images.")
    submission_mode: Literal["K8sJobMode", "HTTPMode", "SidecarMode"] = Field(
        default="K8sJobMode",
        description="How KubeRay submits the job: by a pod, over HTTP from the operator, or from beside the head.",
    )
    queue: str = Field(default="", description="Kueue LocalQueue; empty starts at once.")
    queue_priority: str = Field(default="", description="Kueue WorkloadPriorityClass; empty for none.")
    queue_seconds: int = Field(default=86_400, ge=1, description="Longest wait in the queue.")
    operator_seconds: int = Field(default=300, ge=1, description="Longest wait for the operator to take the job up.")
    pre_running_deadline_seconds: int = Field(
        default=1_800, ge=1, description="Longest time from admission to a running job."
    )
    active_deadline_seconds: int = Field(default=86_400, ge=1, description="Longest time from admission to the end.")
    backoff_limit: int = Field(default=0, ge=0, description="Retries by KubeRay itself, whatever the failure was.")
    attempts: int = Field(
        default=3, ge=1, description="Jobs a step starts when the cluster, and not the stage, failed."
    )
    ttl_seconds_after_finished: int = Field(
        default=60, ge=0, description="How long KubeRay keeps the pods of a finished job."
    )
    deletion_seconds: int = Field(default=120, ge=0, description="How long a step waits for a deleted job to be gone.")
    outage_seconds: int = Field(default=600, ge=0, description="Longest outage of the API server a step sits out.")
    autoscaling: Literal["off", "v1", "v2"] = Field(default="off", description="Ray's autoscaler inside the cluster.")
    idle_timeout_seconds: int = Field(
        default=60, ge=0, description="Idle time after which the autoscaler removes a worker."
    )
    gcs_fault_tolerance: GcsFaultTolerance | None = Field(
        default=None, description="State of the head outside it; None: none."
    )
    auth: Literal["off", "token"] = Field(
        default="off", description="Ray's token authentication; the operator makes a token per cluster (KubeRay 1.5.1)."
    )
    auth_secret: str = Field(
        default="", description="Secret whose key `auth_token` is the token, in place of one per cluster (KubeRay 1.6)."
    )
    labels: dict[str, str] = Field(default_factory=dict, description="Labels added to the RayJob.")

    @model_validator(mode="after")
    def _token_can_be_used(self) -> "RayCluster":
        if self.auth_secret and self.auth == "off":
            raise ValueError("auth is token where auth_secret is named")
        if self.auth == "token" and tuple(int(part) for part in self.ray_version.split(".")[:2]) < _RAY_WITH_TOKENS:
            raise ValueError("ray_version is at least 2.52 where auth is token")
        if self.auth == "token" and self.submission_mode == "HTTPMode" and not self.auth_secret:
            raise ValueError("auth_secret is named in HTTPMode: the step reads the driver's log with its token")
        return self

    @model_validator(mode="after")
    def _deadlines_in_order(self) -> "RayCluster":
        if self.pre_running_deadline_seconds > self.active_deadline_seconds:
            raise ValueError("pre_running_deadline_seconds is at most active_deadline_seconds")
        return self

    @model_validator(mode="after")
    def _log_outlives_the_job(self) -> "RayCluster":
        if self.submission_mode != "K8sJobMode" and self.ttl_seconds_after_finished < _LOG_SECONDS:
            raise ValueError(
                f"ttl_seconds_after_finished is at least {_LOG_SECONDS} in {self.submission_mode}: "
                "the end of the driver's log goes with the head pod"
            )
        return self

    @property
    def has_accelerators(self) -> bool:
        """Whether any of its pods asks for an accelerator."""
        return any(group.resources.num_accelerators for group in (self.head, *self.workers.values()))


class Placement(Pod):
    """Images, resources, nodes, storage, Ray clusters and secret names of one place to run."""

    name: str = Field(description="Name of the placement, as given to --placement.")
    image: str = Field(min_length=1, description="Image of every task, pinned by digest on a cluster.")
    artifact_root: str = Field(
        default="", description="Folder or s3:// address of the artifacts for a task; empty leaves it to `qwenops run`."
    )
    cache_root: str = Field(
        default="", description="Folder of downloads inside a task; empty leaves it to `qwenops run`."
    )
    tracking_uri: str = Field(
        default="", description="MLflow tracking URI seen from a task; empty leaves it to `qwenops run`."
    )
    ray_address: str = Field(
        default="", description="Address of a running Ray; empty for none: data stages then work in forks."
    )
    num_workers: int = Field(default=0, ge=0, description="Ray Train workers; 0 trains in the task's own process.")
    mesh: ParallelConfig = Field(
        default=ParallelConfig(), description="How these workers divide a model in pre-training."
    )
    image_engines: tuple[Literal["vllm"], ...] = Field(
        default=(),
        description="Generation engines its images hold beside in_process and endpoint, which every image has.",
    )
    resources: dict[str, Resources] = Field(default_factory=dict, description="Area name to its tasks' resources.")
    clusters: dict[str, RayCluster] = Field(default_factory=dict, description="Cluster name to a Ray cluster.")
    launchers: dict[str, str] = Field(
        default_factory=dict,
        description="Area name to the cluster its stages run on as RayJobs; others run in the pod.",
    )
    launcher_resources: Resources = Field(
        default=Resources(cpu="100m", memory="1Gi"), description="Resources of a step that only waits for its RayJob."
    )
    fuse: tuple[tuple[str, ...], ...] = Field(
        default=(),
        description="Groups of nodes that one step runs in turn, in one RayJob where their areas have a cluster: a "
        "step and a job cost ten seconds and more, which stages of seconds share. A group runs in one place.",
    )
    prices: Prices | None = Field(
        default=None, description="What computing costs there; None leaves cost out of the report."
    )
    budget: float = Field(default=0.0, ge=0, description="What a run may cost, in the prices' currency; 0 is no limit.")
    retries: int = Field(
        default=0, ge=0, description="Times KFP retries a failed task; a lost step pod adopts its RayJob."
    )
    timeout_seconds: int = Field(
        default=0, ge=0, description="Longest life of a step's pod, queueing included; 0: no limit."
    )

    @model_validator(mode="after")
    def _places_can_be_written(self) -> "Placement":
        check_store(self.artifact_root)
        check_path(self.cache_root)
        return self

    @model_validator(mode="after")
    def _mesh_fits_the_workers(self) -> "Placement":
        for place in (self, *self.clusters.values()):
            place.mesh.resolved(max(place.num_workers, 1))
        return self

    @model_validator(mode="after")
    def _clusters_exist(self) -> "Placement":
        unknown = sorted(set(self.launchers.values()) - set(self.clusters))
        if unknown:
            raise ValueError(f"launchers name clusters that do not exist: {', '.join(unknown)}")
        return self

    @model_validator(mode="after")
    def _node_has_one_step(self) -> "Placement":
        nodes = [node for group in self.fuse for node in group]
        if twice := sorted({node for node in nodes if nodes.count(node) > 1}):
            raise ValueError(f"fuse names {', '.join(twice)} more than once")
        return self

    @model_validator(mode="after")
    def _bucket_has_a_volume_beside_it(self) -> "Placement":
        if self.artifact_root and not self.shared_root:
            raise ValueError("a cache_root on a shared volume where artifact_root is an object store")
        return self

    @property
    def shared_root(self) -> str:
        """Folder of the files that the steps of a run share: beside an object store, on the cache's volume."""
        return self.cache_root if self.artifact_root.startswith("s3://") else self.artifact_root

    def cluster(self, area: str) -> RayCluster | None:
        """The Ray cluster of `area`, its pods completed with the placement's fields; None: the step's own pod."""
        if area not in self.launchers:
            return None
        cluster = self.clusters[self.launchers[area]]
        changed = {
            "head": self._complete(cluster.head),
            "submitter": self._complete(cluster.submitter),
            "workers": {name: self._complete(group) for name, group in cluster.workers.items()},
        }
        return cluster.model_copy(update=changed)

    def _complete(self, group: P) -> P:
        missing = {name for name in Pod.model_fields if name not in group.model_fields_set}
        return group.model_copy(update={name: getattr(self, name) for name in missing})
