"""What kinds of device are known, and at which rate they train: measured where it was, assumed where it was not."""

from dataclasses import dataclass

from qwenops.recipe.placement import Placement

_ASSUMED_UTILISATION = 0.40


@dataclass(frozen=True)
class Device:
    """One device as a plan sees it.

    Attributes:
        name: In words.
        memory_bytes: 0 where it differs from machine to machine.
        flops_per_second: FLOPs of training per second, with attention counted.
        source: How that rate is known.
    """

    name: str
    memory_bytes: int
    flops_per_second: float
    source: str


def _assumed(name: str, memory_bytes: int, peak: float) -> Device:
    share = f"{_ASSUMED_UTILISATION:.0%} of the dense bf16 peak of {peak / 1e12:.0f} TFLOP/s"
    return Device(name, memory_bytes, _ASSUMED_UTILISATION * peak, f"ASSUMED, not measured: {name} at {share}")


_BY_LABEL = {
    "NVIDIA-H200": _assumed("NVIDIA H200", 141 * 10**9, 989e12),
    "NVIDIA-H100-80GB-HBM3": _assumed("NVIDIA H100", 80 * 10**9, 989e12),
}
_CPU = Device(
    "CPU of two cores",
    0,
    12.0e9,
    "ASSUMED, not measured: two CPU cores at 12 GFLOP/s",
)


def device_of(placement: Placement) -> Device:
    """The device that `placement` trains on: by the node label of its GPUs, else the CPU."""
    cluster = placement.cluster("pretraining")
    pods = [cluster.head, *cluster.workers.values()] if cluster else [placement]
    for label in (label for pod in pods for label in pod.node_selector.values()):
        if label in _BY_LABEL:
            return _BY_LABEL[label]
    return _CPU


def workers_of(placement: Placement) -> int:
    """Ray Train workers of a training stage at `placement`, at least the one that is the stage itself."""
    cluster = placement.cluster("pretraining")
    return max(cluster.num_workers if cluster else placement.num_workers, 1)
