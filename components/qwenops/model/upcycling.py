"""Dense to fine-grained experts: replicate, shuffle, slice, re-initialise half (report, section 2.2.2).

A dense FFN has F neurons, each a triple: a row of gate, a row of up, a column of down. C = ceil(n * E / F) copies of
it, each in its own order, are laid end to end and cut into n experts of E neurons, so experts may straddle two copies;
the rest is discarded. Then half of every expert is drawn afresh. The report does not say whether half means neurons or
single weights; the default draws whole neurons, with one choice for all three matrices, because that leaves the other
half's functions intact (house choice). Nor does it say where the shared expert comes from: it is made the same way
with n = 1 and nothing drawn afresh, which keeps one path of dense quality (house choice).

Every draw has a generator of its own, seeded by layer and purpose, so results do not depend on the order of the work.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import PreTrainedModel, Qwen2MoeConfig, Qwen2MoeForCausalLM

from qwenops.errors import RecipeError
from qwenops.model.sizes import Experts

Granularity = Literal["neuron", "weight"]
_ROUTER_STD = 0.02


@dataclass(frozen=True)
class FeedForward:
    """Weights of one or more gated FFNs: gate and up [..., width, hidden], down [..., hidden, width]."""

    gate: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor


def num_copies(num_experts: int, expert_width: int, dense_width: int) -> int:
    """C = ceil(n * E / F): 9 for Qwen2-57B-A14B."""
    return math.ceil(num_experts * expert_width / dense_width)


def slice_experts(dense: FeedForward, num_experts: int, expert_width: int, *, seed: int, layer: int) -> FeedForward:
    """Replicate, shuffle and slice one dense FFN; nothing is re-initialised.

    Args:
        dense: gate and up [F, hidden], down [hidden, F].
        num_experts: n.
        expert_width: E, neurons per expert.
        seed: Seed of the upcycling.
        layer: Index of the layer; every layer and copy has a permutation of its own.

    Returns:
        gate and up [n, E, hidden], down [n, hidden, E]: new tensors, each neuron bit-equal to its source.
    """
    width = dense.gate.shape[0]
    copies = num_copies(num_experts, expert_width, width)
    orders = [torch.randperm(width, generator=_generator(seed, layer, f"copy {c}")) for c in range(copies)]
    chosen = torch.cat(orders)[: num_experts * expert_width].to(dense.gate.device)
    shape = (num_experts, expert_width, -1)
    return FeedForward(
        dense.gate[chosen].view(shape),
        dense.up[chosen].view(shape),
        dense.down.T[chosen].view(shape).transpose(1, 2).contiguous(),
    )


def reinitialize(
    experts: FeedForward, ratio: float, *, granularity: Granularity, source: FeedForward, seed: int, layer: int
) -> FeedForward:
    """Draw exactly `ratio` of every expert afresh from N(0, std of the source matrix).

    Args:
        experts: As `slice_experts` returns them.
        ratio: Share of neurons or weights, from 0 to 1; rounded to a whole number per expert.
        granularity: "neuron" draws whole neurons, the same ones in all three matrices; "weight" draws single weights,
            chosen separately in each matrix.
        source: The dense FFN, whose standard deviations are used.
        seed: Seed of the upcycling.
        layer: Index of the layer.
    """
    result = FeedForward(experts.gate.clone(), experts.up.clone(), experts.down.clone())
    pairs = (("gate", result.gate, source.gate), ("up", result.up, source.up), ("down", result.down, source.down))
    for expert in range(experts.gate.shape[0]):
        width = experts.gate.shape[1]
        fresh = _choose(width, ratio, _generator(seed, layer, f"neurons {expert}"))
        for name, matrices, origin in pairs:
            generator = _generator(seed, layer, f"{name} {expert}")
            matrix = matrices[expert]
            mask = torch.zeros(matrix.shape, dtype=torch.bool)
            if granularity == "neuron":
                (mask.T if name == "down" else mask)[fresh] = True
            else:
                mask.view(-1)[_choose(matrix.numel(), ratio, generator)] = True
            values = torch.randn(matrix.shape, generator=generator) * float(origin.float().std())
            matrix[mask.to(matrix.device)] = values[mask].to(matrix)
    return result


@torch.no_grad()
def upcycle(
    dense: PreTrainedModel,
    experts: Experts,
    *,
    reinit_ratio: float = 0.5,
    granularity: Granularity = "neuron",
    seed: int,
) -> Qwen2MoeForCausalLM:
    """Make a Qwen2-MoE model from a dense Qwen2 model, on the CPU and in its dtype.

    Everything outside the FFNs is copied. The router is fresh N(0, 0.02) and the shared expert's gate zero, so that it
    starts half open (house choices; the report gives neither). The loss jumps at first: the router's chosen
    probabilities do not add up to one, and half of every expert is new.

    Raises:
        RecipeError: `reinit_ratio` is not a share, or the experts have no shared part.
    """
    if not 0 <= reinit_ratio <= 1 or experts.shared_width < 1:
        raise RecipeError(
            "these experts cannot be upcycled",
            expected="a ratio from 0 to 1 and a shared width of at least 1",
            found=f"ratio {reinit_ratio}, shared width {experts.shared_width}",
            action="mend the upcycle config",
        )
    state = dense.state_dict()
    for layer in range(dense.config.num_hidden_layers):
        prefix = f"model.layers.{layer}.mlp."
        source = FeedForward(*(state.pop(f"{prefix}{name}_proj.weight") for name in ("gate", "up", "down")))
        state |= {
            prefix + name: value
            for name, value in _sparse_layer(source, experts, reinit_ratio, granularity, seed, layer).items()
        }
    with torch.device("meta"):
        model = Qwen2MoeForCausalLM(_moe_config(dense, experts))
    model = model.to_empty(device="cpu").to(dense.dtype)
    model.load_state_dict({name: value.clone() for name, value in state.items()}, strict=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    model.tie_weights()
    return model


def _sparse_layer(
    source: FeedForward, experts: Experts, ratio: float, granularity: Granularity, seed: int, layer: int
) -> dict[str, torch.Tensor]:
    """Weights of one sparse layer under transformers' names, experts fused as it holds them in memory."""
    sliced = slice_experts(source, experts.num_experts, experts.expert_width, seed=seed, layer=layer)
    routed = reinitialize(sliced, ratio, granularity=granularity, source=source, seed=seed, layer=layer)
    # The shared expert's copies must not repeat the order of the routed experts' copies.
    shared = slice_experts(source, 1, experts.shared_width, seed=seed + 1, layer=layer)
    hidden = source.gate.shape[1]
    router = torch.randn(experts.num_experts, hidden, generator=_generator(seed, layer, "router")) * _ROUTER_STD
    return {
        "gate.weight": router.to(source.gate),
        "experts.gate_up_proj": torch.cat((routed.gate, routed.up), dim=1),
        "experts.down_proj": routed.down,
        "shared_expert.gate_proj.weight": shared.gate[0],
        "shared_expert.up_proj.weight": shared.up[0],
        "shared_expert.down_proj.weight": shared.down[0],
        "shared_expert_gate.weight": torch.zeros(1, hidden).to(source.gate),
    }


def _moe_config(dense: PreTrainedModel, experts: Experts) -> Qwen2MoeConfig:
    kept = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "hidden_act",
        "max_position_embeddings",
        "initializer_range",
        "rms_norm_eps",
        "tie_word_embeddings",
        "rope_parameters",
        "attention_dropout",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    )
    return Qwen2MoeConfig(
        **{name: getattr(dense.config, name) for name in kept},
        num_experts=experts.num_experts,
        num_experts_per_tok=experts.num_active,
        moe_intermediate_size=experts.expert_width,
        shared_expert_intermediate_size=experts.shared_width,
        norm_topk_prob=False,
        decoder_sparse_step=1,
        attn_implementation="sdpa",
    )


def _choose(size: int, ratio: float, generator: torch.Generator) -> torch.Tensor:
    """Exactly round(ratio * size) of the indices 0 to size - 1."""
    return torch.randperm(size, generator=generator)[: round(ratio * size)]


def _generator(seed: int, layer: int, purpose: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}/{layer}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
