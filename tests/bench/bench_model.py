"""Time and memory of Dual Chunk Attention against causal SDPA, both with their rotations, at one layer's shape.

    PYTHONPATH=. python tests/bench/bench_model.py [--lengths 1024 ... 65536] [--threads 1] [--train]

Prints one line per length: processor seconds of both sides, their ratio, and the memory each needs beyond its inputs.
The two sides take turns and the fastest of the repeats counts. `--repeats 0` measures memory alone, which is how far
lengths are reached on a small machine.
"""

import argparse
from collections.abc import Callable

import torch
from tests.bench.meters import conditions, cpu_seconds, peak_resident

from qwenops.model.dual_chunk import DualChunk, attend
from qwenops.model.rope import rotate, rotation_table

_GROUP, _HEAD_SIZE, _THETA = 7, 64, 1e6
_SIDES = ("sdpa", "dual_chunk")
_CPU = torch.device("cpu")


def _side(name: str, length: int, kv_heads: int, scheme: DualChunk, train: bool) -> Callable[[], object]:
    """One of the two computations over the same random projections, of seven query heads per key-value head."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, length, _HEAD_SIZE, generator=generator, requires_grad=train)
        for heads in (_GROUP * kv_heads, kv_heads, kv_heads)
    )
    far = rotation_table(_THETA, _HEAD_SIZE, length, _CPU)
    near = rotation_table(_THETA, _HEAD_SIZE, scheme.chunk_size + 1, _CPU)
    tokens = torch.arange(length)

    def sdpa() -> torch.Tensor:
        turned = rotate(query, tokens, far), rotate(key, tokens, far)
        return torch.nn.functional.scaled_dot_product_attention(*turned, value, is_causal=True, enable_gqa=True)

    def dual_chunk() -> torch.Tensor:
        return attend(query, key, value, scheme, near, _HEAD_SIZE**-0.5)

    side = sdpa if name == "sdpa" else dual_chunk

    def work() -> object:
        with torch.inference_mode(not train):
            return side().sum().backward() if train else side()

    return work


def main() -> None:
    """Measure every length and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16_384])
    parser.add_argument("--kv-heads", type=int, default=2, help=f"key-value heads, each with {_GROUP} query heads")
    parser.add_argument("--chunk-size", type=int, default=4096, help="largest relative position")
    parser.add_argument("--local-size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="timings per length; 0 measures memory alone")
    parser.add_argument("--sides", nargs="+", choices=_SIDES, default=_SIDES, help="whose memory is measured")
    parser.add_argument("--train", action="store_true", help="forward and backward pass")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scheme = DualChunk(options.chunk_size, options.local_size)
    print(f"{conditions()}; fp32, {scheme}")
    print(
        f"{_GROUP * options.kv_heads} query heads, {options.kv_heads} key-value heads of {_HEAD_SIZE}, one row; "
        + ("forward and backward" if options.train else "prefill")
    )
    print("\n| length | SDPA, CPU s | DCA, CPU s | DCA / SDPA | SDPA, MiB | DCA, MiB |\n|---|---|---|---|---|---|")
    for length in options.lengths:
        settings = length, options.kv_heads, scheme, options.train
        best = dict.fromkeys(_SIDES, float("nan"))
        if options.repeats:
            sides = {name: _side(name, *settings) for name in _SIDES}
            rounds = [[cpu_seconds(side) for side in sides.values()] for _ in range(options.repeats)]
            best = {name: min(times) for name, times in zip(_SIDES, zip(*rounds, strict=True), strict=True)}
            del sides
        peaks = {name: peak_resident(_side, name, *settings) / 2**20 for name in options.sides}
        times = f"{best['sdpa']:.3f} | {best['dual_chunk']:.3f} | {best['dual_chunk'] / best['sdpa']:.2f}"
        memory = " | ".join(f"{peaks[name]:,.0f}" if name in peaks else "" for name in _SIDES)
        print(f"| {length:,} | {times} | {memory} |", flush=True)


if __name__ == "__main__":
    main()
