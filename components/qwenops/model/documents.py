"""Attention of packed rows, one kernel call per document, as an attention function registered with transformers.

transformers keeps documents of a row apart by a mask over the whole row, and a masked kernel multiplies what the mask
then hides. Here every document meets its own keys alone, so a row costs the sum of its documents' squares, and half of
that, since the kernel knows that they are causal. Documents begin where `position_ids` are 0 (`training/batching.py`);
`borders` looks for them once per forward pass, since every look makes a GPU's queue run empty.

House choice: the report says nothing about documents that share a row.

Dimensions: B batch, H query heads, K key-value heads, L length, D head size.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface

from qwenops.model.attention import attend_part, attend_part_backward, under_autocast
from qwenops.model.sdpa import mask_of, sdpa_attention

NAME = "by_document"
Spans = tuple[tuple[slice, slice], ...]


@dataclass(frozen=True)
class Documents:
    """Where the documents of a batch lie.

    A class of its own, and no plain tuple, so that torch.compile does not compile a layer for every new set of borders.

    Attributes:
        spans: Row and stretch of every document; empty where every row is one document.
    """

    spans: Spans


def borders(model: Any, position_ids: torch.Tensor | None, attention_mask: torch.Tensor | None) -> dict[str, Documents]:
    """What the decoder body of `model` is called with beside its inputs, so that no layer looks for borders again.

    Args:
        model: A `*ForCausalLM`.
        position_ids: int64 [B, L]; 0 at the first token of each document; None where every row is one document.
        attention_mask: A mask of padded rows, which are not packed.

    Returns:
        Nothing where the model attends in another way or rows are padded.
    """
    if model.config._attn_implementation != NAME or attention_mask is not None:
        return {}
    return {"documents": documents_of(position_ids) if position_ids is not None else Documents(())}


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
    documents: Documents | None = None,
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
        position_ids: int64 [1 or B, L]; 0 at the first token of each document. Read where `documents` is None.
        documents: What `borders` found.
        settings: Others of the interface, handed on.

    Returns:
        [B, L, H, D], and None for the weights that are never formed.
    """
    packed = attention_mask is None and not dropout and query.shape[2] == key.shape[2] > 1
    if packed and documents is None and position_ids is not None:
        documents = documents_of(position_ids.expand(query.shape[0], -1))
    if not packed or documents is None or not documents.spans:
        return sdpa_attention(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **settings)
    query, key, value = under_autocast(query, key, value)
    # Once for the row and not for each of its documents.
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    output: torch.Tensor = _ByDocument.apply(query, key, value, documents.spans, scaling)
    return output.transpose(1, 2), None


def documents_of(position_ids: torch.Tensor) -> Documents:
    """The documents of rows whose positions, int64 [B, L], restart at each of them; one wait for the device."""
    starts = (position_ids[:, 1:] == 0).nonzero().add(position_ids.new_tensor([0, 1])).tolist()
    if not starts:
        return Documents(())
    rows, length = position_ids.shape
    inner: list[list[int]] = [[] for _ in range(rows)]
    for row, start in starts:
        inner[row].append(start)
    return Documents(
        tuple(
            (slice(row, row + 1), slice(first, end))
            for row in range(rows)
            for first, end in pairwise((0, *inner[row], length))
        )
    )


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
            pieces = attend_part_backward(
                gradients[0][row, :, own],
                query[row, :, own],
                key[row, :, own],
                value[row, :, own],
                output[row, :, own],
                total[row, :, own],
                ctx.scaling,
                causal=True,
            )
            for whole, piece in zip(found, pieces, strict=True):
                whole[row, :, own] = piece
        return *found, None, None


def _mask_of_padding(*args: Any, attention_mask: torch.Tensor | None = None, **settings: Any) -> torch.Tensor | None:
    """Mask function of transformers' interface: none for packed rows, whose borders the positions carry."""
    return None if attention_mask is None else mask_of(*args, attention_mask=attention_mask, **settings)


AttentionInterface.register(NAME, document_attention)
AttentionMaskInterface.register(NAME, _mask_of_padding)
