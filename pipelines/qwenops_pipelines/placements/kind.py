"""A throw-away cluster on one machine (kind, minikube): no GPU, no internet, images loaded by hand, small resources.

Every stage of a heavy area runs as a RayJob with one small pod, so the whole cluster path is walked. The claim
`qwenops-artifacts` holds artifacts, downloads and MLflow's database. Any of it can be changed without code:
`qwenops placement kind > mine.json`, edit it, give the file to `--placement`.
"""

from qwenops.recipe.placement import Placement, RayCluster, RayGroup, Resources, Volume
from qwenops_pipelines.placements.environment import ENVIRONMENT
from qwenops_pipelines.placements.restricted import RESTRICTED

_ROOT = "/mnt/qwenops"
# What a step and its RayJob cost is more than any of these stages takes with `smoke`: six steps in place of 29.
_FUSED = (
    ("collect", "ingest", "quality", "dedup", "decontaminate", "tokenizer", "mixture", "tokens"),
    ("pretrain", "extend", "upcycle"),
    ("ontology", "select", "evolve"),
    ("sft_seed", "rank", "synthesize", "sft", "reward", "dpo", "online"),
    ("benchmarks", "long_context", "safety", "multilingual", "contamination"),
    ("export", "register", "report"),
)


def kind() -> Placement:
    """Return the placement of a throw-away cluster; its image must be loaded into the nodes."""
    small = RayCluster(
        head=RayGroup(
            resources=Resources(cpu="500m", memory="3Gi"),
            ray_start_params={"num-cpus": "2", "object-store-memory": "300000000"},
            shm_size="512Mi",
            security_context=RESTRICTED,
        ),
        submitter=RayGroup(resources=Resources(cpu="50m", memory="512Mi"), security_context=RESTRICTED),
        operator_seconds=120,
        pre_running_deadline_seconds=600,
        active_deadline_seconds=3_600,
        ttl_seconds_after_finished=10,
    )
    return Placement(
        name="kind",
        image="qwenops/data:0.1.0",
        image_pull_policy="Never",
        artifact_root=f"{_ROOT}/artifacts",
        cache_root=f"{_ROOT}/cache",
        volumes={"artifacts": Volume(claim="qwenops-artifacts", mount_path=_ROOT)},
        tracking_uri=f"sqlite:///{_ROOT}/mlflow.db",
        env=ENVIRONMENT | {"OMP_NUM_THREADS": "1"},
        clusters={"small": small},
        launchers=dict.fromkeys(("data", "pretraining", "instructions", "alignment", "evaluation"), "small"),
        launcher_resources=Resources(cpu="50m", memory="512Mi"),
        resources={"delivery": Resources(cpu="200m", memory="2Gi")},
        fuse=_FUSED,
        retries=1,
    )
