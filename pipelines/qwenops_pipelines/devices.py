"""What kinds of device are known, and at which rate they train: measured where it was, assumed where it was not.

A plan for a CPU measures the machine it is made on, since processors differ tenfold: a second of matrix products. No
GPU has been measured yet, so their figures are assumptions, and the plan says so.
"""

import os
import re
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from qwenops.recipe.placement import Placement
from qwenops.training.footprint import PEAKS

# A usual share for dense models of this size on H100s; no run of this project stands behind it.
_ASSUMED_UTILISATION = 0.40
# Of the rate of float32 matrix products. `fit` in bf16 on an EPYC that has it, one thread, where products run at 80
# GFLOP/s: 0.70 (hidden size 128, rows of 512), 1.1 (256) and 1.2 (576, vocabulary of 49,152). The least is taken.
_CPU_UTILISATION = 0.70
# Resident in a process of `pretrain` after its imports and a first step of a model of no size, torch 2.13 on x86.
PROCESS_BYTES = 600_000_000
_PRODUCT, _REPEATS = 1024, 5
# Names in /proc/cpuinfo of the instructions by which `qwenops.training.precision` computes in bf16.
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}


@dataclass(frozen=True)
class Device:
    """One device as a plan sees it.

    Attributes:
        name: In words.
        memory_bytes: Those of the machine, for a CPU.
        flops_per_second: FLOPs of training per second, with attention counted.
        source: How that rate is known.
        kind: What it is.
        has_bf16: Whether it multiplies in bf16; where not, training computes in fp32.
    """

    name: str
    memory_bytes: int
    flops_per_second: float
    source: str
    kind: Literal["cpu", "gpu"] = "gpu"
    has_bf16: bool = True


def _assumed(name: str, memory_bytes: int) -> Device:
    peak = PEAKS[name]
    share = f"{_ASSUMED_UTILISATION:.0%} of the dense bf16 peak of {peak / 1e12:.0f} TFLOP/s"
    return Device(name, memory_bytes, _ASSUMED_UTILISATION * peak, f"ASSUMED, not measured: {name} at {share}")


_BY_LABEL = {
    name.replace(" ", "-"): _assumed(name, memory)
    for name, memory in {"NVIDIA H200": 141 * 10**9, "NVIDIA H100 80GB HBM3": 80 * 10**9}.items()
}


def device_of(placement: Placement) -> Device:
    """The device that `placement` trains on: by the node label of its GPUs, else the CPU of this machine."""
    cluster = placement.cluster("pretraining")
    pods = [cluster.head, *cluster.workers.values()] if cluster else [placement]
    for label in (label for pod in pods for label in pod.node_selector.values()):
        if label in _BY_LABEL:
            return _BY_LABEL[label]
    return this_cpu()


@cache
def this_cpu() -> Device:
    """This machine's processors at the rate they have now, whatever else they do; takes about a second."""
    count = len(os.sched_getaffinity(0))
    products = _matrix_products_per_second()
    source = (
        f"MEASURED just now: {products / 1e9:.0f} GFLOP/s, float32 products on this machine's {count} processors; "
        f"ASSUMED: training runs at {_CPU_UTILISATION:.0%} of that (least of three shapes measured on one EPYC)"
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    name = f"CPU of this machine, {count} processors"
    return Device(name, memory, _CPU_UTILISATION * products, source, "cpu", _has_bf16())


def _matrix_products_per_second() -> float:
    """FLOPs per second of the best of a few products; wall time, on the threads that numpy takes."""
    matrix, seconds = np.ones((_PRODUCT, _PRODUCT), dtype=np.float32), []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        np.matmul(matrix, matrix)
        seconds.append(time.perf_counter() - began)
    return float(2 * _PRODUCT**3 / min(seconds))


def _has_bf16() -> bool:
    facts = Path("/proc/cpuinfo")
    text = facts.read_text("utf-8") if facts.exists() else ""
    listed = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return bool(listed and _BF16_FLAGS & set(listed[1].split()))
