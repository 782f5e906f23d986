"""One Kubernetes node with eight H200 GPUs, artifacts on a shared claim, MLflow inside the cluster.

Document stages get a CPU cluster, model stages one pod that holds the whole node: eight Ray Train workers beside
the head need no network between pods. Reports and registration run in the Kubeflow step itself.
"""

from qwenops.recipe.placement import Placement, RayCluster, RayGroup, Resources, Toleration, Volume
from qwenops_pipelines.placements.environment import ENVIRONMENT
from qwenops_pipelines.placements.restricted import RESTRICTED

_HOUR = 3_600


def h200_node() -> Placement:
    """Return the placement for a single GPU node; the image digest is set by whoever builds the image."""
    submitter = RayGroup(resources=Resources(cpu="100m", memory="512Mi"), security_context=RESTRICTED)
    cpu = RayCluster(
        head=RayGroup(resources=Resources(cpu="32", memory="128G"), security_context=RESTRICTED),
        submitter=submitter,
        queue="qwenops",
    )
    gpu = RayCluster(
        head=RayGroup(
            resources=Resources(cpu="96", memory="1024G", accelerator="nvidia.com/gpu", num_accelerators=8),
            node_selector={"nvidia.com/gpu.product": "NVIDIA-H200"},
            tolerations=(Toleration(key="nvidia.com/gpu"),),
            shm_size="256Gi",
            security_context=RESTRICTED,
        ),
        submitter=submitter,
        num_workers=8,
        queue="qwenops",
        active_deadline_seconds=14 * 24 * _HOUR,
    )
    return Placement(
        name="h200_node",
        image="qwenops/train:0.1.0",
        service_account="qwenops-ray",
        artifact_root="/mnt/qwenops/artifacts",
        cache_root="/mnt/qwenops/cache",
        volumes={"artifacts": Volume(claim="qwenops-artifacts", mount_path="/mnt/qwenops")},
        tracking_uri="http://qwenops-mlflow:5000",
        env=ENVIRONMENT,
        image_engines=("vllm",),
        clusters={"cpu": cpu, "gpu": gpu},
        launchers={
            "data": "cpu",
            "pretraining": "gpu",
            "instructions": "gpu",
            "alignment": "gpu",
            "evaluation": "gpu",
        },
        resources={"delivery": Resources(cpu="4", memory="32G")},
        retries=2,
    )
