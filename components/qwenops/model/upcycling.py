"""Dense to fine-grained experts: replicate, shuffle, slice, re-initialise half (report, section 2.2.2).

A dense FFN has F neurons, each a triple: a row of gate, a row of up, a column of down. C = ceil(n * E / F) copies of
it, each in its own order, are laid end to end and cut into n experts of E neurons, so experts may straddle two copies;
the rest is discarded. Then half of every expert is drawn afresh. The report does not say whether half means neurons or
single weights; the default draws whole neurons, with one choice for all three matrices, because that leaves the other
half's functions intact (house choice). Nor does it say where the shared expert comes from: it is made the same way
with n = 1 and nothing drawn afresh, which keeps one path of dense quality (house choice).

Made so, the mixture does not compute what the dense model did: the chosen probabilities do not add up to one, the
shared path is half open, and half of every expert is new. `function_preserving` starts from the dense function
instead, and leaves the report in one point: the shared path is scaled to carry the whole dense FFN, and the routed
experts' down matrices start at zero, so that experts join as they learn (house choice, after blocks that are added to a
trained network).

Every draw has a generator of its own, seeded by layer and purpose, so results do not depend on the order of the work,
and an expert can be made without its neighbours: `upcycled_layer` holds one at a time. `upcycle` makes a model in
memory; `upcycle_folder` in `upcycled_folder.py` goes from files to files.

Dimensions: F dense width, n experts of width E, C copies.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import PreTrainedModel, Qwen2MoeConfig, Qwen2MoeForCausalLM

from qwenops.errors import RecipeError
from qwenops.model import sdpa
from qwenops.model.architecture import SHARED_FIELDS
from qwenops.model.checkpoints import to_device
from qwenops.model.sizes import Experts

Granularity = Literal["neuron", "weight"]
Start = Literal["report", "function_preserving"]
_ROUTER_STD = 0.02
_MATRICES = ("gate", "up", "down")


@dataclass(frozen=True)
class Upcycling:
    """How a dense FFN becomes experts.

    Attributes:
        experts: Layout.
        reinit_ratio: Share of every routed expert that is drawn afresh.
        granularity: "neuron" draws whole neurons, the same ones in all three matrices; "weight" draws single weights,
            chosen separately in each matrix.
        start: "report", or "function_preserving" to begin with the dense model's function.
        seed: Seed of every draw.

    Raises:
        RecipeError: the ratio is not a share, or the layout has no shared part.
    """

    experts: Experts
    reinit_ratio: float = 0.5
    granularity: Granularity = "neuron"
    start: Start = "report"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.reinit_ratio <= 1 or self.experts.shared_width < 1:
            raise RecipeError(
                "these experts cannot be upcycled",
                expected="a ratio from 0 to 1 and a shared width of at least 1",
                found=f"ratio {self.reinit_ratio}, shared width {self.experts.shared_width}",
                action="mend the upcycle config",
            )


@dataclass(frozen=True)
class FeedForward:
    """Weights of one or more gated FFNs: gate and up [..., width, hidden], down [..., hidden, width]."""

    gate: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor

    @property
    def spread(self) -> tuple[float, float, float]:
        """Standard deviation of each matrix."""
        gate, up, down = (float(matrix.float().std()) for matrix in (self.gate, self.up, self.down))
        return gate, up, down

    def take(self, neurons: torch.Tensor) -> "FeedForward":
        """New FFNs of the given neurons of this one, int64 [..., width], each bit-equal to its source."""
        neurons = neurons.to(self.gate.device)
        return FeedForward(self.gate[neurons], self.up[neurons], self.down.T[neurons].mT.contiguous())


def num_copies(num_experts: int, expert_width: int, dense_width: int) -> int:
    """C = ceil(n * E / F): 9 for Qwen2-57B-A14B."""
    return math.ceil(num_experts * expert_width / dense_width)


def neurons_of_experts(num_experts: int, expert_width: int, dense_width: int, *, seed: int, layer: int) -> torch.Tensor:
    """Replicate, shuffle and slice: the dense neuron behind each expert neuron, int64 [n, E].

    Args:
        num_experts: n.
        expert_width: E, neurons per expert.
        dense_width: F.
        seed: Seed of the upcycling.
        layer: Index of the layer; every layer and copy has a permutation of its own.
    """
    copies = num_copies(num_experts, expert_width, dense_width)
    orders = [torch.randperm(dense_width, generator=_generator(seed, layer, f"copy {c}")) for c in range(copies)]
    return torch.cat(orders)[: num_experts * expert_width].view(num_experts, expert_width)


def reinitialize(
    expert: FeedForward, how: Upcycling, spread: tuple[float, float, float], *, layer: int, index: int
) -> FeedForward:
    """Draw exactly `how.reinit_ratio` of one expert afresh from N(0, `spread` of the source matrix).

    Args:
        expert: One expert, gate and up [E, hidden], down [hidden, E].
        how: Ratio, granularity and seed; the ratio is rounded to a whole number of neurons or weights.
        spread: Standard deviations of the dense gate, up and down.
        layer: Index of the layer.
        index: Index of the expert.
    """
    matrices = [matrix.clone() for matrix in (expert.gate, expert.up, expert.down)]
    fresh = _choose(expert.gate.shape[0], how.reinit_ratio, _generator(how.seed, layer, f"neurons {index}"))
    for name, matrix, deviation in zip(_MATRICES, matrices, spread, strict=True):
        generator = _generator(how.seed, layer, f"{name} {index}")
        mask = torch.zeros(matrix.shape, dtype=torch.bool)
        if how.granularity == "neuron":
            (mask.T if name == "down" else mask)[fresh] = True
        else:
            mask.view(-1)[_choose(matrix.numel(), how.reinit_ratio, generator)] = True
        values = torch.randn(matrix.shape, generator=generator) * deviation
        matrix[mask.to(matrix.device)] = values[mask].to(matrix)
    return FeedForward(*matrices)


def upcycled_layer(source: FeedForward, how: Upcycling, layer: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights of one sparse layer under their hub names, one expert at a time.

    The router is fresh N(0, 0.02) and the shared expert's gate zero, so that it starts half open (house choices; the
    report gives neither).

    Args:
        source: The dense FFN: gate and up [F, hidden], down [hidden, F].
        how: Layout and draws.
        layer: Index of the layer.

    Raises:
        RecipeError: `function_preserving` with a shared expert too narrow for the dense FFN.
    """
    layout, (dense_width, hidden) = how.experts, source.gate.shape
    preserving = how.start == "function_preserving"
    if preserving and layout.shared_width < dense_width:
        raise RecipeError(
            "the shared expert cannot hold the dense function",
            expected=f"a shared width of at least {dense_width}",
            found=layout.shared_width,
            action="widen it, or start as the report does",
        )
    router = torch.randn(layout.num_experts, hidden, generator=_generator(how.seed, layer, "router")) * _ROUTER_STD
    yield "gate.weight", router.to(source.gate)
    neurons = neurons_of_experts(layout.num_experts, layout.expert_width, dense_width, seed=how.seed, layer=layer)
    spread = source.spread
    for index in range(layout.num_experts):
        expert = reinitialize(source.take(neurons[index]), how, spread, layer=layer, index=index)
        down = torch.zeros_like(expert.down) if preserving else expert.down
        yield from _named(f"experts.{index}", expert.gate, expert.up, down)
    # The shared expert's copies must not repeat the order of the routed experts' copies.
    chosen = neurons_of_experts(1, layout.shared_width, dense_width, seed=how.seed + 1, layer=layer)[0]
    shared = source.take(chosen)
    if preserving:
        # A neuron's copies share its output, and the gate halves their sum.
        scale = 2.0 / torch.bincount(chosen, minlength=dense_width)[chosen]
        shared = FeedForward(shared.gate, shared.up, shared.down * scale.to(shared.down))
    yield from _named("shared_expert", shared.gate, shared.up, shared.down)
    yield "shared_expert_gate.weight", torch.zeros(1, hidden).to(source.gate)


@torch.no_grad()
def upcycle(dense: PreTrainedModel, how: Upcycling) -> Qwen2MoeForCausalLM:
    """Make a Qwen2-MoE model from a dense Qwen2 model, on the CPU and in its dtype.

    Everything outside the FFNs is copied. The loss jumps at first unless the start preserves the function.
    """
    state = dense.state_dict()
    for layer in range(dense.config.num_hidden_layers):
        prefix = f"model.layers.{layer}.mlp."
        source = FeedForward(*(state.pop(f"{prefix}{name}_proj.weight") for name in _MATRICES))
        state |= {prefix + name: value for name, value in _fused(upcycled_layer(source, how, layer)).items()}
    with torch.device("meta"):
        model = Qwen2MoeForCausalLM(moe_config(dense.config, how.experts))
    model = to_device(model.to_empty(device="cpu"), dense.dtype)
    model.load_state_dict({name: value.clone() for name, value in state.items()}, strict=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    model.tie_weights()
    return model


def moe_config(dense: Any, experts: Experts) -> Qwen2MoeConfig:
    """The config of the mixture made from a model with the config `dense`."""
    return Qwen2MoeConfig(
        **{name: getattr(dense, name) for name in (*SHARED_FIELDS, "hidden_act", "rms_norm_eps")},
        num_experts=experts.num_experts,
        num_experts_per_tok=experts.num_active,
        moe_intermediate_size=experts.expert_width,
        shared_expert_intermediate_size=experts.shared_width,
        norm_topk_prob=False,
        decoder_sparse_step=1,
        attn_implementation=sdpa.NAME,  # pyright: ignore[reportCallIssue]  # every config takes it, undeclared
    )


def _named(prefix: str, gate: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    for name, matrix in zip(_MATRICES, (gate, up, down), strict=True):
        yield f"{prefix}.{name}_proj.weight", matrix


def _fused(weights: Iterator[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The layer as transformers holds it in memory: experts stacked, gate over up."""
    found = dict(weights)
    experts: dict[str, list[torch.Tensor]] = {name: [] for name in _MATRICES}
    for name in [name for name in found if name.startswith("experts.")]:
        experts[name.split(".")[2].removesuffix("_proj")].append(found.pop(name))
    gate, up, down = (torch.stack(experts[name]) for name in _MATRICES)
    return found | {"experts.gate_up_proj": torch.cat((gate, up), dim=1), "experts.down_proj": down}


def _choose(size: int, ratio: float, generator: torch.Generator) -> torch.Tensor:
    """Exactly round(ratio * size) of the indices 0 to size - 1."""
    return torch.randperm(size, generator=generator)[: round(ratio * size)]


def _generator(seed: int, layer: int, purpose: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}/{layer}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
