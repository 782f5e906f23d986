"""Dual Chunk Attention as an attention function registered with transformers.

Positions never exceed what the model was trained with: keys are numbered within their chunk, and a query is rotated
three times, once for keys of its own chunk, once for the chunk before, once for all earlier ones. Because a key's
position depends on the key alone, keys are cached un-rotated and never change; the model's rotary embedding is replaced
by the identity, so that queries and keys arrive here as they left their projections.

A chunk of queries meets its keys in three kernel calls whose outputs are merged by their log-sum-exp, so memory is
linear in the length, in training too. The alternative, a monkey patch of the attention classes (ChunkLlama), ties one
to their source.

Report: section 2.2.1; arXiv 2402.17463. Parameters are those of Qwen's released configs and vLLM (`chunk_size`,
`local_size`); the report does not give the values it used.

Dimensions: B batch, H query heads, K key-value heads, G = H / K, Q queries, T keys, D head size.
"""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import causal_mask_function

from qwenops.errors import RecipeError, StageError
from qwenops.model.attention import attend_part, attend_part_backward, under_autocast
from qwenops.model.rope import rotate, rotation_table

NAME = "dual_chunk"


@dataclass(frozen=True)
class DualChunk:
    """How positions are numbered.

    Attributes:
        chunk_size: Largest relative position that may occur; Qwen sets it to the trained length. Attention equals plain
            RoPE for inputs of up to `chunk_size + 1` tokens.
        local_size: Distance across a chunk border up to which relative positions stay exact.
    """

    chunk_size: int
    local_size: int

    def __post_init__(self) -> None:
        if not 1 <= self.local_size < self.chunk_length:
            raise RecipeError(
                "dual chunk attention's local window does not fit its chunks",
                expected="1 <= local_size < chunk_size - local_size",
                found=f"{self.local_size} of {self.chunk_size}",
                action="choose a local_size below half of chunk_size",
            )

    @classmethod
    def from_paper(cls, trained_length: int, chunk_length: int | None = None) -> "DualChunk":
        """The DCA paper's numbering: chunks of 3/4 of the trained length, largest position one below that length."""
        length = 3 * trained_length // 4 if chunk_length is None else chunk_length
        return cls(chunk_size=trained_length - 1, local_size=trained_length - 1 - length)

    @property
    def chunk_length(self) -> int:
        """Tokens per chunk, s."""
        return self.chunk_size - self.local_size

    def positions(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Position of tokens as key or own-chunk query, as next-chunk query, and as query of earlier chunks."""
        own = tokens % self.chunk_length
        successive = (own + self.chunk_length).clamp(max=self.chunk_size)
        return own, successive, torch.full_like(tokens, self.chunk_size)


class IdentityRotary(nn.Module):
    """Stands in for a model's rotary embedding: cos 1 and sin 0 leave queries and keys as they are.

    Args:
        replaced: Class of the embedding it stands in for, to build it anew from a config.
    """

    def __init__(self, replaced: type[nn.Module]) -> None:
        super().__init__()
        self.replaced = replaced

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cos and sin [1, 1, 1], which broadcast over any position."""
        return x.new_ones(1, 1, 1), x.new_zeros(1, 1, 1)


def dual_chunk_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention function of transformers' interface.

    Args:
        module: The attention layer; its config holds `dual_chunk_attention_config` and the RoPE base.
        query: [B, H, Q, D], un-rotated; the last Q of T tokens.
        key: [B, K, T, D], un-rotated.
        value: [B, K, T, D].
        attention_mask: None, or bool [B, T] with padding on the left of each row (`padding_mask`).
        scaling: Factor of the logits, temperature included.
        dropout: Must be 0; the recipe never uses attention dropout.
        sliding_window: Must be None or 0; every released config has `use_sliding_window` false.

    Returns:
        [B, Q, H, D], and None for the weights that are never formed.
    """
    if dropout or sliding_window:
        raise RecipeError(
            "dual chunk attention has neither dropout nor a sliding window",
            expected="both off",
            found=f"dropout {dropout}, window {sliding_window}",
            action="switch them off in the model's config",
        )
    query, key, value = under_autocast(query, key, value)
    config: Any = module.config
    settings = config.dual_chunk_attention_config
    scheme = DualChunk(settings["chunk_size"], settings["local_size"])
    theta = config.rope_parameters["rope_theta"]
    table = rotation_table(theta, query.shape[-1], scheme.chunk_size + 1, query.device)
    if attention_mask is None:
        return attend(query, key, value, scheme, table, scaling).transpose(1, 2), None
    output = torch.zeros_like(query)
    num_queries = query.shape[2]
    paddings = _left_padding(attention_mask)
    for padding in sorted(set(paddings)):
        # Chunks begin at the first real token, so rows with different padding have different borders.
        first = num_queries - min(num_queries, key.shape[2] - padding)
        rows = torch.tensor([row for row, found in enumerate(paddings) if found == padding], device=query.device)
        output[rows, :, first:] = attend(
            query[rows, :, first:], key[rows, :, padding:], value[rows, :, padding:], scheme, table, scaling
        )
    return output.transpose(1, 2), None


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scheme: DualChunk, table: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Causal dual chunk attention of the last Q of T tokens, without padding; differentiable.

    Memory is linear in T, of the backward pass too: it calls the kernels' own backward passes, part by part.

    Args:
        query: [B, H, Q, D], un-rotated.
        key: [B, K, T, D], un-rotated.
        value: [B, K, T, D].
        scheme: The numbering.
        table: `rotation_table` of at least `chunk_size + 1` positions.
        scaling: Factor of the logits.

    Returns:
        [B, H, Q, D], in the query's dtype.
    """
    own = scheme.positions(torch.arange(key.shape[2], device=key.device))[0]
    output: torch.Tensor = _Parts.apply(query, rotate(key, own, table), value, scheme, table, scaling)  # type: ignore[assignment]
    return output


class Part(NamedTuple):
    """Queries of one chunk that meet a run of keys: rows of the query, their positions, the keys, and how they see."""

    rows: slice
    positions: torch.Tensor
    keys: slice
    causal: bool


def parts_of(scheme: DualChunk, num_queries: int, num_keys: int, device: torch.device) -> Iterator[list[Part]]:
    """For each chunk that holds queries, the parts that together cover all keys its queries see."""
    size, first = scheme.chunk_length, num_keys - num_queries
    for begin in range(first // size * size, num_keys, size):
        low, high = max(begin, first), min(begin + size, num_keys)
        own, successive, earlier = scheme.positions(torch.arange(low, high, device=device))
        rows = slice(low - first, high - first)
        if high - low == 1:
            parts = [Part(rows, own, slice(begin, high), causal=False)]
        else:
            parts = [Part(rows, own, slice(low, high), causal=True)]
            if low > begin:
                parts.append(Part(rows, own, slice(begin, low), causal=False))
        if begin >= size:
            parts.append(Part(rows, successive, slice(begin - size, begin), causal=False))
        if begin >= 2 * size:
            parts.append(Part(rows, earlier, slice(0, begin - size), causal=False))
        yield parts


class _Parts(torch.autograd.Function):
    """Attention part by part, from keys that are rotated and queries that are not."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scheme: DualChunk,
        table: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """Attend and merge, chunk by chunk."""
        output = torch.empty_like(query)
        total = query.new_empty(query.shape[:-1], dtype=torch.float32)
        for parts in parts_of(scheme, query.shape[2], key.shape[2], query.device):
            rows = parts[0].rows
            found = [
                attend_part(
                    rotate(query[:, :, rows], part.positions, table),
                    key[:, :, part.keys],
                    value[:, :, part.keys],
                    scaling,
                    causal=part.causal,
                )
                for part in parts
            ]
            output[:, :, rows] = merge(found).to(query.dtype)
            total[:, :, rows] = torch.stack([lse for _, lse in found]).logsumexp(dim=0)
        ctx.save_for_backward(query, key, value, output, total, table)
        ctx.scheme, ctx.scaling = scheme, scaling
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Add up what each part contributes; keys gather in float32, since many chunks reach them."""
        query, key, value, output, total, table = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        back = table * table.new_tensor([1.0, -1.0])[:, None, None]
        of_query = torch.zeros_like(query)
        of_key, of_value = (torch.zeros_like(x, dtype=torch.float32) for x in (key, value))
        for part in itertools.chain(*parts_of(ctx.scheme, query.shape[2], key.shape[2], query.device)):
            rows, keys = part.rows, part.keys
            turned, for_key, for_value = attend_part_backward(
                gradient[:, :, rows],
                rotate(query[:, :, rows], part.positions, table),
                key[:, :, keys],
                value[:, :, keys],
                output[:, :, rows],
                total[:, :, rows],
                ctx.scaling,
                causal=part.causal,
            )
            of_query[:, :, rows] += rotate(turned, part.positions, back)
            of_key[:, :, keys] += for_key
            of_value[:, :, keys] += for_value
        return of_query, of_key.to(key.dtype), of_value.to(value.dtype), None, None, None


def merge(parts: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Join attention over disjoint keys: outputs [..., Q, D] weighted by the softmax of their log-sum-exp [..., Q]."""
    if len(parts) == 1:
        return parts[0][0]
    weights = torch.stack([lse for _, lse in parts]).softmax(dim=0)[..., None]
    weighted = (weight * output.float() for weight, (output, _) in zip(weights, parts, strict=True))
    return functools.reduce(torch.add, weighted)


def padding_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    *,
    mask_function: Any = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    local_size: int | None = None,
    **_: Any,
) -> torch.Tensor | None:
    """Mask function of transformers' interface: keep the 2-D padding mask, never form a square one.

    Raises:
        StageError: documents are packed in one row, which chunks cannot follow.
    """
    # The MoE model asks for a sliding-window mask (local_size) too and uses it in no layer.
    if local_size is None and mask_function is not causal_mask_function:
        raise StageError(
            "dual chunk attention got a packed row",
            expected="one document per row, causal",
            found="position_ids that start again, or a custom mask",
            action="give each document its own row",
        )
    if attention_mask is None or bool(attention_mask.all()):
        return None
    return attention_mask[:, :kv_length]


def _left_padding(mask: torch.Tensor) -> list[int]:
    """Leading zeros of each row; zeros behind the last real token are harmless under causality."""
    mask = mask.int()
    if bool(((mask[:, 1:] > mask[:, :-1]).sum(1) + mask[:, 0] > 1).any()):
        raise StageError(
            "dual chunk attention got a mask with holes",
            expected="padding at the ends of a row",
            found="padding between tokens",
            action="pad on the left",
        )
    return mask.argmax(dim=1).tolist()


AttentionInterface.register(NAME, dual_chunk_attention)
AttentionMaskInterface.register(NAME, padding_mask)
