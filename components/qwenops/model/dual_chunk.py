"""Dual Chunk Attention as an attention function registered with transformers.

Positions never exceed what the model was trained with: keys are numbered within their chunk, and a query is rotated
three times, once for keys of its own chunk, once for the chunk before, once for all earlier ones. Because a key's
position depends on the key alone, keys are cached un-rotated and never change; the model's rotary embedding is replaced
by the identity, so that queries and keys arrive here as they left their projections.

A chunk of queries meets its keys in three kernel calls whose outputs are merged by their log-sum-exp, so memory is
linear in the length. The alternative, a monkey patch of the attention classes (ChunkLlama), ties one to their source.

Report: section 2.2.1; arXiv 2402.17463. Parameters are those of Qwen's released configs and vLLM (`chunk_size`,
`local_size`); the report does not give the values it used.

Dimensions: B batch, H query heads, K key-value heads, G = H / K, Q queries, T keys, D head size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import causal_mask_function

from qwenops.errors import RecipeError, StageError
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
    """Stands in for a model's rotary embedding: cos 1 and sin 0 leave queries and keys as they are."""

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
    settings = module.config.dual_chunk_attention_config
    scheme = DualChunk(settings["chunk_size"], settings["local_size"])
    theta = module.config.rope_parameters["rope_theta"]
    table = rotation_table(theta, query.shape[-1], scheme.chunk_size + 1, query.device)
    if attention_mask is None:
        return attend(query, key, value, scheme, table, scaling).transpose(1, 2), None
    output = torch.zeros_like(query)
    num_queries = query.shape[2]
    for row, padding in enumerate(_left_padding(attention_mask)):
        # Chunks begin at the first real token, so rows with different padding have different borders.
        real = min(num_queries, key.shape[2] - padding)
        one = slice(row, row + 1)
        output[one, :, num_queries - real :] = attend(
            query[one, :, num_queries - real :], key[one, :, padding:], value[one, :, padding:], scheme, table, scaling
        )
    return output.transpose(1, 2), None


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scheme: DualChunk, table: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Causal dual chunk attention of the last Q of T tokens, without padding.

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
    total, size = key.shape[2], scheme.chunk_length
    first = total - query.shape[2]
    key = rotate(key, scheme.positions(torch.arange(total, device=key.device))[0], table)
    output = torch.empty_like(query)
    for begin in range(first // size * size, total, size):
        tokens = torch.arange(max(begin, first), min(begin + size, total), device=key.device)
        rows = slice(int(tokens[0]) - first, int(tokens[-1]) - first + 1)
        own, successive, earlier = (rotate(query[:, :, rows], p, table) for p in scheme.positions(tokens))
        end = begin + size
        visible = rows.stop + first - begin
        parts = [_attend_causally(own, key[:, :, begin:end], value[:, :, begin:end], scaling, visible)]
        if begin >= size:
            near = slice(begin - size, begin)
            parts.append(_attend_fully(successive, key[:, :, near], value[:, :, near], scaling))
        if begin >= 2 * size:
            parts.append(_attend_fully(earlier, key[:, :, : begin - size], value[:, :, : begin - size], scaling))
        output[:, :, rows] = merge(parts).to(query.dtype)
    return output


def merge(parts: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Join attention over disjoint keys: outputs [..., Q, D] weighted by the softmax of their log-sum-exp [..., Q]."""
    if len(parts) == 1:
        return parts[0][0]
    weights = torch.stack([lse for _, lse in parts]).softmax(dim=0)[..., None]
    return sum(weight * output.float() for weight, (output, _) in zip(weights, parts, strict=True))


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


def _attend_causally(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, num_keys: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Own chunk: query i of Q sees keys up to num_keys - Q + i."""
    groups, num_queries = query.shape[1] // key.shape[1], query.shape[2]
    # A chunk's keys are few, so repeating them for each query head costs little.
    key = key[:, :, :num_keys].repeat_interleave(groups, dim=1)
    value = value[:, :, :num_keys].repeat_interleave(groups, dim=1)
    if num_queries in (1, num_keys):
        return _attend(query, key, value, scaling, causal=num_queries > 1)
    mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device).tril(num_keys - num_queries)
    return _attend_plainly(query, key, value, scaling, mask)


def _attend_fully(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Earlier chunks: every query sees every key, so a group's query heads share one call without repeated keys."""
    batch, heads, num_queries, width = query.shape
    grouped = query.reshape(batch, key.shape[1], -1, width)
    output, lse = _attend(grouped, key, value, scaling, causal=False)
    return output.reshape(batch, heads, num_queries, width), lse.reshape(batch, heads, num_queries)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, *, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [B, H, Q, D] and float32 log-sum-exp [B, H, Q], from torch's flash kernels where they serve.

    The public `scaled_dot_product_attention` does not return the log-sum-exp, hence the calls below it. These kernels
    give no gradient through it, so a backward pass takes the plain path.
    """
    needs_gradient = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    if not needs_gradient and query.device.type == "cpu":
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return flash(query, key, value, 0.0, causal, scale=scaling)[:2]
    if not needs_gradient and query.device.type == "cuda" and query.dtype in (torch.bfloat16, torch.float16):
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(query, key, value, 0.0, causal, False, scale=scaling)[:2]
    mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril() if causal else None
    return _attend_plainly(query, key, value, scaling, mask)


def _attend_plainly(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = (query @ key.transpose(-1, -2)).float() * scaling
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    lse = scores.logsumexp(dim=-1)
    return (scores - lse[..., None]).exp().to(value.dtype) @ value, lse


AttentionInterface.register(NAME, dual_chunk_attention)
AttentionMaskInterface.register(NAME, padding_mask)
