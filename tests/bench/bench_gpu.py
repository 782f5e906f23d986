"""One GPU against its peak: training by `fit`, and prefill by Dual Chunk Attention against causal flash attention.

Run with `make bench-gpu` or `python tests/bench/bench_gpu.py`. It imports the engine from this checkout and needs
nothing installed but torch and transformers. Two tables:

- Qwen2-0.5B and Qwen2-1.5B from random weights, bf16, full rows, compiled layers: tokens per second, MFU (with the
  output projection and without it, attention counted causally in both), peak memory.
- Attention of one layer with its rotations, one row: DCA's chunks are those of a model trained at 32,768 tokens.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "components"))

from qwenops.model.architecture import model_config
from qwenops.model.dual_chunk import attend
from qwenops.model.modes import default_dual_chunk
from qwenops.model.rope import rotate, rotation_table
from qwenops.model.sizes import SIZES, Size
from qwenops.training.batching import text_batch
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import FitCallbacks, fit
from qwenops.training.footprint import PEAKS, flops_per_token
from qwenops.training.objective import language_modelling
from qwenops.training.terms import Batch

_THETA, _TRAINED_TOKENS = 1e6, 32_768


@dataclass(frozen=True)
class Training:
    """One line of the first table: `rows` full rows of `length` tokens a step."""

    name: str
    size: Size
    length: int
    rows: int
    recompute: Literal["none", "matmuls", "layers"] = "none"


@dataclass(frozen=True)
class Prefill:
    """One line of the second table: heads of one layer, and the row."""

    name: str
    query_heads: int
    kv_heads: int
    head_size: int
    length: int
    trained: int = _TRAINED_TOKENS


_TINY_SIZE = Size(
    hidden_size=64,
    num_layers=2,
    num_query_heads=4,
    num_kv_heads=2,
    intermediate_size=96,
    vocab_rows=512,
    tied_embeddings=True,
)
TRAINING = (
    Training("0.5B at 4k", SIZES["qwen2_0_5b"](), 4096, 8),
    Training("1.5B at 4k", SIZES["qwen2_1_5b"](), 4096, 4),
    Training("0.5B at 32k", SIZES["qwen2_0_5b"](), 32_768, 1, "layers"),
    Training("1.5B at 32k", SIZES["qwen2_1_5b"](), 32_768, 1, "layers"),
)
PREFILL = (
    Prefill("0.5B's heads", 14, 2, 64, 32_768),
    Prefill("0.5B's heads", 14, 2, 64, 131_072),
    Prefill("7B's heads", 28, 4, 128, 131_072),
)
TINY_TRAINING = (Training("tiny", _TINY_SIZE, 64, 2), Training("tiny, recomputed", _TINY_SIZE, 64, 2, "layers"))
TINY_PREFILL = (Prefill("tiny", 4, 2, 16, 256, trained=64),)


def train(case: Training, device: str, steps: int, compiled: bool) -> str:
    """One line of the first table: the median of the second half of the steps."""
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            model_config(case.size, max_position_embeddings=case.length), attn_implementation="sdpa"
        )
    config = TrainingConfig(
        steps=steps,
        batch_tokens=case.rows * case.length,
        learning_rate=1e-4,
        warmup_steps=0,
        recompute=case.recompute,
        compile="layers" if compiled else "no",
    )
    draw = np.random.default_rng(0)
    rows = draw.integers(case.size.vocab_rows, size=(case.rows, case.length + 1))

    def batches(start: int) -> Iterator[Batch]:
        for _ in range(start, steps):
            yield text_batch(rows)

    marks = [time.perf_counter()]

    def on_step(_: object) -> None:
        _wait(device)
        marks.append(time.perf_counter())

    result = fit(model, language_modelling, batches, config, hooks=FitCallbacks(on_step=on_step))
    seconds = statistics.median(np.diff(marks)[steps // 2 :])
    rate = case.rows * case.length / seconds
    shares = "- | -"
    peak = PEAKS.get(_name(device))
    if peak:
        mfu = [rate * flops_per_token(case.size, case.length, head=head) / peak for head in (True, False)]
        shares = f"{mfu[0]:.1%} | {mfu[1]:.1%}"
    line = f"| {case.name} | {case.rows} x {case.length:,} | {rate:,.0f} | {shares} | {_peak_gb(device)} |"
    return f"{line} {result.final_loss:.3f} |"


@torch.inference_mode()
def prefill(case: Prefill, device: str, repeats: int) -> str:
    """One line of the second table: the fastest of the repeats, the two sides in turns."""
    place, dtype = torch.device(device), torch.bfloat16
    query, key, value = (
        torch.randn(1, heads, case.length, case.head_size, device=place, dtype=dtype)
        for heads in (case.query_heads, case.kv_heads, case.kv_heads)
    )
    scheme, scaling = default_dual_chunk(case.trained), case.head_size**-0.5
    far = rotation_table(_THETA, case.head_size, case.length, place)
    near = rotation_table(_THETA, case.head_size, scheme.chunk_size + 1, place)
    tokens = torch.arange(case.length, device=place)

    def flash() -> torch.Tensor:
        turned, keys = (rotate(x, tokens, far).to(dtype) for x in (query, key))
        return F.scaled_dot_product_attention(turned, keys, value, is_causal=True, enable_gqa=True)

    def dual_chunk() -> torch.Tensor:
        return attend(query, key, value, scheme, near, scaling)

    sides = {"flash": flash, "dual chunk": dual_chunk}
    peaks = {name: _peak_of(side, device) for name, side in sides.items()}
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(repeats):
        for name, side in sides.items():
            best[name] = min(best[name], _seconds(side, device))
    ratio = best["dual chunk"] / best["flash"]
    times = " | ".join(f"{1e3 * seconds:.1f}" for seconds in best.values())
    return f"| {case.name} | {case.length:,} | {times} | {ratio:.2f} | {' | '.join(peaks.values())} |"


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "CPU"


def _seconds(work: Callable[[], object], device: str) -> float:
    _wait(device)
    began = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - began


def _peak_of(work: Callable[[], object], device: str) -> str:
    """Gigabytes in use at the peak of `work`, which warms up by this."""
    _forget(device)
    work()
    return _peak_gb(device)


def _peak_gb(device: str) -> str:
    return f"{torch.cuda.max_memory_allocated() / 1e9:.1f}" if device == "cuda" else "-"


def _forget(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Print the conditions and the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to try the script itself (on a CPU as well)")
    parser.add_argument("--steps", type=int, default=12, help="of training; the second half of them is measured")
    parser.add_argument("--repeats", type=int, default=10, help="of a prefill")
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options.tiny:
        raise SystemExit("no GPU here; --tiny tries the script on a CPU, and measures nothing worth keeping")
    name = _name(device)
    peak = f"dense peak {PEAKS[name] / 1e12:.0f} TFLOP/s" if name in PEAKS else "peak not known"
    print(f"{name}, torch {torch.__version__}, transformers {transformers.__version__}, bf16, {peak}")
    print("\n| model | rows | tokens/s | MFU, all | MFU, without embeddings | peak GB | last loss |")
    print("|---|---|---|---|---|---|---|")
    for training in TINY_TRAINING if options.tiny else TRAINING:
        _forget(device)
        print(train(training, device, options.steps, compiled=not options.no_compile), flush=True)
    print("\n| one layer of | length | flash, ms | DCA, ms | DCA / flash | flash, GB | DCA, GB |")
    print("|---|---|---|---|---|---|---|")
    for case in TINY_PREFILL if options.tiny else PREFILL:
        print(prefill(case, device, options.repeats), flush=True)


if __name__ == "__main__":
    main()
