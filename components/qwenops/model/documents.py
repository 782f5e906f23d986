"""Attention of packed rows, one kernel call per document, as an attention function registered with transformers.

transformers keeps documents of a row apart by a mask over the whole row, and a masked kernel multiplies what the mask
then hides. Here every document meets its own keys alone, so a row costs the sum of its documents' squares, and half of
that, since the kernel knows that they are causal. Documents begin where `position_ids` are 0 (`training/batching.py`).

House choice: the report says nothing about documents that share a row.

Dimensions: B batch, H query heads, K key-value heads, L length, D head size.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from qwenops.model.attention import attend_part, attend_part_backward, under_autocast

NAME = "by_document"
Spans = list[tuple[slice, slice]]


@torch.compiler.disable
def document_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    position_ids: torch.Tensor | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Attention function of transformers' interface; where rows are not packed, its own SDPA function.

    Args:
        module: The attention layer.
        query: [B, H, L, D].
        key: [B, K, L, D].
        value: [B, K, L, D].
        attention_mask: A mask for SDPA where rows are padded, else None.
        scaling: Factor of the logits.
        dropout: For SDPA alone; packed rows are trained without.
        position_ids: int64 [B, L]; 0 at the first token of each document.
        settings: Others of the interface, handed on.

    Returns:
        [B, L, H, D], and None for the weights that are never formed.
    """
    packed = attention_mask is None and position_ids is not None and query.shape[2] == key.shape[2] > 1
    if not packed or dropout:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **settings
        )
    query, key, value = under_autocast(query, key, value)
    # Once for the row and not for each of its documents.
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    output: torch.Tensor = _ByDocument.apply(query, key, value, spans_of(position_ids, query.shape[0]), scaling)
    return output.transpose(1, 2), None


def spans_of(position_ids: torch.Tensor, num_rows: int) -> Spans:
    """Row and stretch of every document; `position_ids` [1 or B, L] holds for all rows where it has one."""
    found: Spans = []
    length = position_ids.shape[1]
    for row, positions in enumerate(position_ids.expand(num_rows, length)):
        borders = [0, *(positions[1:] == 0).nonzero()[:, 0].add(1).tolist(), length]
        found += [(slice(row, row + 1), slice(first, end)) for first, end in pairwise(borders)]
    return found


class _ByDocument(torch.autograd.Function):
    """Slices and their gradients by hand: autograd would make a whole tensor of zeros for every slice."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spans: Spans, scaling: float
    ) -> torch.Tensor:
        """Attend document by document."""
        # [B, L, H, D] in memory, which is what the output projection reads and the kernel writes.
        output = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        total = query.new_empty(query.shape[:-1], dtype=torch.float32)
        for row, own in spans:
            parts = query[row, :, own], key[row, :, own], value[row, :, own]
            output[row, :, own], total[row, :, own] = attend_part(*parts, scaling, causal=True)
        ctx.save_for_backward(query, key, value, output, total)
        ctx.spans, ctx.scaling = spans, scaling
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of query, key and value, document by document."""
        query, key, value, output, total = ctx.saved_tensors
        found = tuple(torch.empty_like(x) for x in (query, key, value))
        for row, own in ctx.spans:
            tensors = (x[row, :, own] for x in (gradients[0], query, key, value, output, total))
            pieces = attend_part_backward(*tensors, ctx.scaling, causal=True)
            for whole, piece in zip(found, pieces, strict=True):
                whole[row, :, own] = piece
        return *found, None, None


def _mask_of_padding(*args: Any, attention_mask: torch.Tensor | None = None, **settings: Any) -> torch.Tensor | None:
    """Mask function of transformers' interface: none for packed rows, whose borders the positions carry."""
    return None if attention_mask is None else sdpa_mask(*args, attention_mask=attention_mask, **settings)


AttentionInterface.register(NAME, document_attention)
AttentionMaskInterface.register(NAME, _mask_of_padding)
