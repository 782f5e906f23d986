"""MFU, tokens per second and peak memory of one training step, on one GPU. Needs torch and transformers only.

Run with `make bench-gpu`, or copy the file to a machine and run `python bench_gpu.py`. It trains Qwen2-0.5B and
Qwen2-1.5B from random weights: bf16 autocast over fp32 weights, full rows, SDPA's flash kernel, compiled layers, fused
AdamW, and the loss in chunks, as `qwenops.training` does; the loss stands here again so that nothing else is needed.

MFU is given twice: with the output projection and without it, attention counted causally in both.
"""

import argparse
import time
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import Qwen2Config, Qwen2ForCausalLM

PEAK = 989e12  # Dense bf16 FLOP/s of an H100 SXM or H200.
CHUNK = 2048


@dataclass(frozen=True)
class Case:
    """One line of the table: model, row length, rows of a step, whether layers are computed again in backward."""

    name: str
    config: Qwen2Config
    length: int
    rows: int
    recompute: bool = False


def qwen2(hidden: int, layers: int, heads: int, kv_heads: int, width: int, vocabulary: int = 151_936) -> Qwen2Config:
    """Dimensions of a Qwen2 with tied embeddings."""
    return Qwen2Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=width,
        vocab_size=vocabulary,
        tie_word_embeddings=True,
        max_position_embeddings=131_072,
    )


SMALL, LARGE = qwen2(896, 24, 14, 2, 4864), qwen2(1536, 28, 12, 2, 8960)
CASES = (
    Case("0.5B at 4k", SMALL, 4096, 8),
    Case("1.5B at 4k", LARGE, 4096, 4),
    Case("0.5B at 32k", SMALL, 32_768, 1, recompute=True),
    Case("1.5B at 32k", LARGE, 32_768, 1, recompute=True),
)
TINY = (
    Case("tiny", qwen2(64, 2, 4, 2, 96, 512), 64, 2),
    Case("tiny, recomputed", qwen2(64, 2, 4, 2, 96, 512), 64, 2, recompute=True),
)


def chunk_loss(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Summed loss of one chunk of tokens."""
    return F.cross_entropy((hidden @ weight.T).float(), labels, reduction="sum")


def loss_of(model: Qwen2ForCausalLM, ids: Tensor) -> Tensor:
    """Mean next-token loss; the logits of a chunk are made, used and made again in backward."""
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state.flatten(0, 1)
    weight, labels = model.lm_head.weight, ids[:, 1:].flatten()
    if torch.is_autocast_enabled(ids.device.type):
        weight = weight.to(torch.bfloat16)
        hidden = hidden.to(torch.bfloat16)
    pieces = zip(hidden.split(CHUNK), labels.split(CHUNK), strict=True)
    total = sum(checkpoint(chunk_loss, part, weight, target, use_reentrant=False) for part, target in pieces)
    return total / len(labels)


def flops_per_token(model: Qwen2ForCausalLM, length: int) -> tuple[int, int]:
    """FLOPs of a forward and a backward pass per token: with the output projection, and without it."""
    config = model.config
    embeddings = config.vocab_size * config.hidden_size
    body = sum(parameter.numel() for parameter in model.parameters()) - embeddings
    attention = 6 * config.num_hidden_layers * config.hidden_size * length
    return 6 * (body + embeddings) + attention, 6 * body + attention


def run(case: Case, device: str, steps: int, compiled: bool) -> str:
    """One line of the table."""
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2ForCausalLM._from_config(case.config, attn_implementation="sdpa", dtype=torch.float32)
    model.train()
    if case.recompute:
        for layer in model.model.layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    if compiled:
        for layer in model.model.layers:
            layer.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    ids = torch.randint(case.config.vocab_size, (case.rows, case.length + 1), device=device)
    seconds: list[float] = []
    for _ in range(steps):
        _wait(device)
        began = time.perf_counter()
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = loss_of(model, ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _wait(device)
        seconds.append(time.perf_counter() - began)
    measured = sorted(seconds[steps // 2 :])
    rate = case.rows * case.length / measured[len(measured) // 2]
    total, body = (rate * flops / PEAK for flops in flops_per_token(model, case.length))
    on_gpu = device == "cuda"
    memory = f"{torch.cuda.max_memory_allocated() / 1e9:.1f}" if on_gpu else "-"
    shares = f"{total:.1%} | {body:.1%}" if on_gpu else "- | -"
    return f"| {case.name} | {case.rows} x {case.length:,} | {rate:,.0f} | {shares} | {memory} | {loss.item():.3f} |"


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Print the conditions and the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to try the script itself (on a CPU as well)")
    parser.add_argument("--steps", type=int, default=12, help="the second half of them is measured")
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options.tiny:
        raise SystemExit("no GPU here; --tiny tries the script on a CPU, and measures nothing worth keeping")
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{name}, {versions}, bf16, peak {PEAK / 1e12:.0f} TFLOP/s")
    print("\n| model | rows | tokens/s | MFU, all | MFU, without embeddings | peak GB | last loss |")
    print("|---|---|---|---|---|---|---|")
    for case in TINY if options.tiny else CASES:
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        print(run(case, device, options.steps, compiled=not options.no_compile), flush=True)


if __name__ == "__main__":
    main()
