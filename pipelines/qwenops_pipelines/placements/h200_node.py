"""One Kubernetes node with eight H200 GPUs, artifacts on a shared claim, MLflow inside the cluster."""

from qwenops.recipe.placement import Placement, Resources, Toleration


def h200_node() -> Placement:
    """Return the placement for a single GPU node; the image digest is set by whoever builds the image."""
    gpu = Resources(cpu="16", memory="256G", accelerator="nvidia.com/gpu", num_accelerators=8)
    return Placement(
        name="h200_node",
        image="qwenops/train:0.1.0",
        artifact_root="/mnt/qwenops/artifacts",
        cache_root="/mnt/qwenops/cache",
        volume_claim="qwenops-artifacts",
        tracking_uri="http://qwenops-mlflow:5000",
        num_workers=8,
        resources={
            "data": Resources(cpu="32", memory="128G"),
            "pretraining": gpu,
            "instructions": gpu,
            "alignment": gpu,
            "evaluation": gpu,
            "delivery": Resources(cpu="4", memory="32G"),
        },
        node_selector={"nvidia.com/gpu.product": "NVIDIA-H200"},
        tolerations=(Toleration(key="nvidia.com/gpu"),),
        retries=1,
    )
