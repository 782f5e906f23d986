"""Time and memory of Dual Chunk Attention against causal SDPA, both with their rotations, at one layer's shape.

    python tests/bench/bench_model.py [--lengths 1024 ... 65536] [--threads 1] [--train]

Prints one line per length: seconds of both sides, their ratio, and the memory each needs beyond its inputs. The two
sides take turns and the fastest of the repeats counts, because other programs only ever add time. Memory is the peak
resident size of a process of its own, less what it held with the inputs ready.
"""

import argparse
import multiprocessing
import platform
import resource
import time
from collections.abc import Callable

import torch

from qwenops.model.dual_chunk import DualChunk, attend
from qwenops.model.rope import rotate, rotation_table

_HEADS, _KV_HEADS, _HEAD_SIZE, _THETA = 14, 2, 64, 1e6
_CPU = torch.device("cpu")


def _sides(length: int, scheme: DualChunk, train: bool) -> dict[str, Callable[[], object]]:
    """The two computations over the same random projections."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, length, _HEAD_SIZE, generator=generator, requires_grad=train)
        for heads in (_HEADS, _KV_HEADS, _KV_HEADS)
    )
    far = rotation_table(_THETA, _HEAD_SIZE, length, _CPU)
    near = rotation_table(_THETA, _HEAD_SIZE, scheme.chunk_size + 1, _CPU)
    tokens = torch.arange(length)

    def sdpa() -> torch.Tensor:
        turned = rotate(query, tokens, far), rotate(key, tokens, far)
        return torch.nn.functional.scaled_dot_product_attention(*turned, value, is_causal=True, enable_gqa=True)

    def dual_chunk() -> torch.Tensor:
        return attend(query, key, value, scheme, near, _HEAD_SIZE**-0.5)

    def step(side: Callable[[], torch.Tensor]) -> Callable[[], object]:
        return (lambda: side().sum().backward()) if train else side

    return {"sdpa": step(sdpa), "dual_chunk": step(dual_chunk)}


def _memory(
    name: str, length: int, scheme: DualChunk, train: bool, threads: int, answers: "multiprocessing.Queue[int]"
):
    torch.set_num_threads(threads)
    side = _sides(length, scheme, train)[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.inference_mode(not train):
        side()
    answers.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def _peak(name: str, length: int, scheme: DualChunk, train: bool, threads: int) -> int:
    """KiB that one side needs beyond its inputs."""
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[int] = context.Queue()
    process = context.Process(target=_memory, args=(name, length, scheme, train, threads, answers))
    process.start()
    found = answers.get()
    process.join()
    return found


def _seconds(sides: dict[str, Callable[[], object]], repeats: int, train: bool) -> dict[str, float]:
    best = dict.fromkeys(sides, float("inf"))
    with torch.inference_mode(not train):
        for _ in range(repeats):
            for name, side in sides.items():
                began = time.perf_counter()
                side()
                best[name] = min(best[name], time.perf_counter() - began)
    return best


def main() -> None:
    """Measure every length and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16_384, 32_768])
    parser.add_argument("--chunk-size", type=int, default=4096, help="largest relative position")
    parser.add_argument("--local-size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--train", action="store_true", help="forward and backward pass")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scheme = DualChunk(options.chunk_size, options.local_size)
    print(f"torch {torch.__version__}, {platform.machine()}, {options.threads} threads, fp32, {scheme}")
    work = "forward and backward" if options.train else "prefill"
    print(f"{_HEADS} query heads, {_KV_HEADS} key-value heads of {_HEAD_SIZE}, one row; {work}")
    print(f"{'length':>8} {'sdpa s':>9} {'dca s':>9} {'ratio':>6} {'sdpa MiB':>9} {'dca MiB':>9}")
    for length in options.lengths:
        best = _seconds(_sides(length, scheme, options.train), options.repeats, options.train)
        peaks = [_peak(name, length, scheme, options.train, options.threads) / 1024 for name in ("sdpa", "dual_chunk")]
        ratio = best["dual_chunk"] / best["sdpa"]
        figures = f"{best['sdpa']:>9.3f} {best['dual_chunk']:>9.3f} {ratio:>6.2f} {peaks[0]:>9.0f} {peaks[1]:>9.0f}"
        print(f"{length:>8} {figures}", flush=True)


if __name__ == "__main__":
    main()
