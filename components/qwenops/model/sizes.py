"""The published sizes (report, Table 1) and their parameter counts, without torch.

Reading a recipe or planning a run needs the numbers only; `model.architecture` turns a size into a transformers config.
"""

from typing import NamedTuple

from pydantic import Field, model_validator

from qwenops.recipe.config import Config


class Experts(Config):
    """The mixture-of-experts part of a size."""

    num_experts: int = Field(default=64, ge=2, description="Routed experts per layer, §2.2.2.")
    num_active: int = Field(
        default=8, ge=1, description="Routed experts a token uses, shared ones not counted, §2.2.2."
    )
    expert_width: int = Field(default=2560, ge=1, description="Intermediate size of one routed expert, §2.2.2.")
    shared_width: int = Field(default=20480, ge=0, description="Intermediate size of the fused shared experts, §2.2.2.")

    @model_validator(mode="after")
    def _a_token_finds_its_experts(self) -> "Experts":
        if self.num_active > self.num_experts:
            raise ValueError(f"num_active at most num_experts, which is {self.num_experts}: not {self.num_active}")
        return self


class Size(Config):
    """Dimensions of one model."""

    hidden_size: int = Field(ge=1, description="Width of the residual stream, §2.2.3.")
    num_layers: int = Field(ge=1, description="Decoder layers, §2.2.3.")
    num_query_heads: int = Field(ge=1, description="Query heads, §2.2.3.")
    num_kv_heads: int = Field(ge=1, description="Key-value heads, §2.2.3.")
    intermediate_size: int = Field(ge=1, description="Width of the dense feed-forward layer, §2.2.3.")
    vocab_rows: int = Field(
        ge=1, description="Rows of the embedding, padded; house choice: the published configs' number."
    )
    tied_embeddings: bool = Field(description="Whether the output projection is the embedding, §2.2.3.")
    rms_norm_epsilon: float = Field(
        default=1e-6, gt=0, description="Epsilon of RMSNorm; house choice: the published configs' value."
    )
    experts: Experts | None = Field(
        default=None, description="Routed and shared experts, or none for a dense model, §2.2.2."
    )

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "Size":
        check_heads(self.hidden_size, self.num_query_heads)
        if self.num_query_heads % self.num_kv_heads:
            fits = [count for count in range(1, self.num_query_heads + 1) if self.num_query_heads % count == 0]
            raise ValueError(
                f"num_kv_heads that divides the {self.num_query_heads} query heads ({', '.join(map(str, fits))}): "
                f"not {self.num_kv_heads}"
            )
        return self

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_query_heads


def check_heads(width: int, heads: int) -> None:
    """Check that `width` is that of `heads` heads, each of an even width because RoPE turns pairs (section 2.2.1).

    Raises:
        ValueError: it is not; says the nearest widths that are.
    """
    unit = 2 * heads
    if width % unit:
        below, above = width // unit * unit, (width // unit + 1) * unit
        near = f"{below} or {above}" if below else f"{above}"
        raise ValueError(f"a hidden_size that {heads} heads of even width divide, such as {near}: not {width}")


class Parameters(NamedTuple):
    """Parameter counts; `active` are those one token uses, embeddings not counted."""

    total: int
    non_embedding: int
    active: int


def qwen2_0_5b() -> Size:
    """Qwen2-0.5B: 494 M parameters, of which 358 M are not embeddings."""
    return Size(
        hidden_size=896,
        num_layers=24,
        num_query_heads=14,
        num_kv_heads=2,
        intermediate_size=4864,
        vocab_rows=151_936,
        tied_embeddings=True,
    )


def qwen2_1_5b() -> Size:
    """Qwen2-1.5B: 1.54 billion parameters."""
    return Size(
        hidden_size=1536,
        num_layers=28,
        num_query_heads=12,
        num_kv_heads=2,
        intermediate_size=8960,
        vocab_rows=151_936,
        tied_embeddings=True,
    )


def qwen2_7b() -> Size:
    """Qwen2-7B: 7.62 billion parameters."""
    return Size(
        hidden_size=3584,
        num_layers=28,
        num_query_heads=28,
        num_kv_heads=4,
        intermediate_size=18_944,
        vocab_rows=152_064,
        tied_embeddings=False,
    )


def qwen2_72b() -> Size:
    """Qwen2-72B: 72.7 billion parameters; the base model's epsilon is 1e-5."""
    return Size(
        hidden_size=8192,
        num_layers=80,
        num_query_heads=64,
        num_kv_heads=8,
        intermediate_size=29_568,
        vocab_rows=152_064,
        tied_embeddings=False,
        rms_norm_epsilon=1e-5,
    )


def qwen2_57b_a14b() -> Size:
    """Qwen2-57B-A14B: 57.4 billion parameters, upcycled from the 7B model, about 14 billion active per token."""
    return qwen2_7b().model_copy(update={"vocab_rows": 151_936, "experts": Experts()})


SIZES = {
    "qwen2_0_5b": qwen2_0_5b,
    "qwen2_1_5b": qwen2_1_5b,
    "qwen2_7b": qwen2_7b,
    "qwen2_72b": qwen2_72b,
    "qwen2_57b_a14b": qwen2_57b_a14b,
}


def count_parameters(size: Size) -> Parameters:
    """Count parameters by formula: attention with biases on q, k and v only, three FFN matrices, two norms a layer."""
    h, queries, keys = size.hidden_size, size.num_query_heads * size.head_size, size.num_kv_heads * size.head_size
    attention = h * queries + queries + 2 * (h * keys + keys) + queries * h
    if size.experts is None:
        feed_forward = active = 3 * h * size.intermediate_size
    else:
        one, shared = 3 * h * size.experts.expert_width, 3 * h * size.experts.shared_width
        gates = size.experts.num_experts * h + h
        feed_forward = size.experts.num_experts * one + shared + gates
        active = size.experts.num_active * one + shared + gates
    fixed = attention + 2 * h
    body = size.num_layers * (fixed + feed_forward) + h
    embeddings = size.vocab_rows * h * (1 if size.tied_embeddings else 2)
    return Parameters(body + embeddings, body, size.num_layers * (fixed + active) + h)
