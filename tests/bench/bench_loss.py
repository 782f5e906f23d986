"""Peak memory and time of the chunked cross entropy against materialised logits, with the same gradients.

    PYTHONPATH=. python tests/bench/bench_loss.py [--tokens 32768] [--reference-tokens 2048] [--width 64]

The materialised side grows with the tokens and would need some 60 GB at 32,768 tokens by 151,936 rows, so it is
measured at `--reference-tokens` and scaled by the tokens; `--reference-tokens 32768` measures it where the memory is
there. Both sides' gradients are compared at the reference's tokens.
"""

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from tests.bench.meters import conditions, cpu_seconds, peak_resident
from torch import Tensor

from qwenops.training.loss import chunked_cross_entropy

_ROWS = 151_936


def _inputs(tokens: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator, requires_grad=True)
    weight = (torch.randn(_ROWS, width, generator=generator) / width**0.5).requires_grad_()
    return hidden, weight, torch.randint(_ROWS, (tokens,), generator=generator)


def _loss(chunked: bool, tokens: int, width: int) -> Callable[[], list[Tensor]]:
    """A forward and backward pass of one side, which returns the gradients of hidden states and weight."""
    hidden, weight, labels = _inputs(tokens, width)

    def work() -> list[Tensor]:
        loss = chunked_cross_entropy(hidden, weight, labels) if chunked else F.cross_entropy(hidden @ weight.T, labels)
        return list(torch.autograd.grad(loss, (hidden, weight)))

    return work


def main() -> None:
    """Measure both sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--reference-tokens", type=int, default=2048)
    parser.add_argument("--width", type=int, default=64, help="hidden size: memory hardly depends on it, time does")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    few, many = options.reference_tokens, options.tokens
    print(f"{conditions()}; fp32, {_ROWS:,} vocabulary rows, hidden size {options.width}")
    sides = [_loss(chunked, few, options.width) for chunked in (False, True)]
    gradients: list[list[Tensor]] = []
    seconds = [cpu_seconds(lambda side=side: gradients.append(side())) for side in sides]
    worst = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(*gradients, strict=True))
    print(f"gradients at {few:,} tokens: largest difference {worst:.1e} of the largest entry")
    print(f"CPU seconds at {few:,} tokens: materialised {seconds[0]:.2f}, chunked {seconds[1]:.2f}")
    gradients.clear()
    sides.clear()
    reference = peak_resident(_loss, False, few, options.width)
    scaled = reference * many // few
    chunked = peak_resident(_loss, True, many, options.width)
    print(f"\n| tokens | side | peak MiB |\n|---|---|---|\n| {few:,} | materialised | {reference / 2**20:,.0f} |")
    if few != many:
        print(f"| {many:,} | materialised, scaled by the tokens | {scaled / 2**20:,.0f} |")
    print(f"| {many:,} | chunked | {chunked / 2**20:,.0f} |")
    logits = 4 * _ROWS * many
    print(f"\nchunked is 1/{scaled / chunked:.1f} of materialised, 1/{logits / chunked:.1f} of the logits alone")


if __name__ == "__main__":
    main()
