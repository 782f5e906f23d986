"""What the benchmarks measure with: processor seconds, peak memory of a process of its own, and the conditions."""

import multiprocessing
import platform
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from qwenops.training.precision import compute_dtype


def conditions() -> str:
    """One line about this machine."""
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    bf16 = "has" if compute_dtype(torch.device("cpu"), "bf16") == torch.bfloat16 else "only emulates"
    return (
        f"{model[1] if model else platform.machine()} ({torch.backends.cpu.get_cpu_capability()}), which {bf16} bf16; "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )


def cpu_seconds(work: Callable[[], object]) -> float:
    """Processor seconds of all threads of this process; with one thread, the wall time of an idle machine.

    Other programs take wall time away from a process and hardly add processor time, so a ratio of these holds on a
    shared machine.
    """
    began = time.process_time()
    work()
    return time.process_time() - began


def peak_resident(prepare: Callable[..., Callable[[], object]], *arguments: Any) -> int:
    """Bytes that `prepare(*arguments)()` needs beyond what `prepare` left, in a fresh process.

    `prepare` must be a module-level function. The kernel's own high-water mark is set back between the two, so neither
    imports nor what the parent process once held count. What fails there is raised here.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(_measure, prepare, arguments, torch.get_num_threads()).result()


def _measure(prepare: Callable[..., Callable[[], object]], arguments: tuple[Any, ...], threads: int) -> int:
    torch.set_num_threads(threads)
    work = prepare(*arguments)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident("VmRSS")
    kept = work()
    peak = resident("VmHWM")
    del kept
    return peak - before


def resident(name: str) -> int:
    """A line of this process's status in bytes: `VmRSS` now, `VmHWM` at its peak."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found
    return int(found[1]) * 1024
