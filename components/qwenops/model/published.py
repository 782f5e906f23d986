"""Every published Qwen model up to Qwen2, by name: its size and the lengths and RoPE base it was released with.

Qwen1 and Qwen1.5 are the report's predecessors and, on transformers' side, the same class as Qwen2: multi-head
attention is grouped attention with as many key-value heads as query heads, and Qwen1's feed-forward width is the
effective one (its own config prints twice that, because gate and up share it). Qwen1 is the report 2309.16609, Table 1,
with the 72B model and all of Qwen1.5 from their released configs; the widths of Qwen1.5-4B, 14B, 32B and 110B were
not checked against a second source.
"""

from typing import NamedTuple

from qwenops.model.sizes import SIZES, Experts, Size

_SMALL_ROWS, _LARGE_ROWS = 151_936, 152_064
_QWEN1_BASE, _LONG_BASE = 10_000.0, 1_000_000.0


class Published(NamedTuple):
    """A released model: its size, RoPE base, longest trained row and longest supported input, both in tokens."""

    size: Size
    rope_theta: float
    trained_length: int
    longest_input: int


def _dense(hidden: int, layers: int, heads: int, kv_heads: int, width: int, rows: int, *, tied: bool = False) -> Size:
    return Size(
        hidden_size=hidden,
        num_layers=layers,
        num_query_heads=heads,
        num_kv_heads=kv_heads,
        intermediate_size=width,
        vocab_rows=rows,
        tied_embeddings=tied,
    )


_QWEN1_SIZES = {
    "1_8b": _dense(2048, 24, 16, 16, 5504, _SMALL_ROWS),
    "7b": _dense(4096, 32, 32, 32, 11_008, _SMALL_ROWS),
    "14b": _dense(5120, 40, 40, 40, 13_696, _LARGE_ROWS),
    "72b": _dense(8192, 80, 64, 64, 24_576, _LARGE_ROWS),
}
_QWEN1_5_SIZES = _QWEN1_SIZES | {
    "0_5b": _dense(1024, 24, 16, 16, 2816, _SMALL_ROWS, tied=True),
    "4b": _dense(2560, 40, 20, 20, 6912, _SMALL_ROWS),
    "32b": _dense(5120, 64, 40, 8, 27_392, _LARGE_ROWS),
    "110b": _dense(8192, 80, 64, 8, 49_152, _LARGE_ROWS),
    "moe_a2_7b": _QWEN1_SIZES["1_8b"].model_copy(
        update={"experts": Experts(num_experts=60, num_active=4, expert_width=1408, shared_width=5632)}
    ),
}
# Section 3.2 and the release notes: 128K for 7B and 72B, 64K for the mixture; the small models read what they trained.
_QWEN2_INPUTS = {"qwen2_7b": 131_072, "qwen2_72b": 131_072, "qwen2_57b_a14b": 65_536}

PUBLISHED: dict[str, Published] = (
    {f"qwen1_{name}": Published(size, _QWEN1_BASE, 2048, 2048) for name, size in _QWEN1_SIZES.items()}
    | {f"qwen1_5_{name}": Published(size, _LONG_BASE, 32_768, 32_768) for name, size in _QWEN1_5_SIZES.items()}
    | {
        name: Published(size(), _LONG_BASE, 32_768, _QWEN2_INPUTS.get(name, 32_768))
        for name, size in sorted(SIZES.items())
    }
)
