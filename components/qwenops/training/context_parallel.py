"""Context parallelism: each worker holds a stretch of every row, and attention sees the keys of all stretches.

Keys and values are gathered layer by layer; under grouped-query attention they are a fraction of the queries, and their
gradients are summed and return to their owners. Queries, feed-forward layers and losses never
leave their worker, so activations fall with the number of workers. In evaluation mode every worker reads whole rows.
"""

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from qwenops.errors import RecipeError

_NAME = "context_parallel"


def apply_context_parallel(model: Any, mesh: DeviceMesh) -> None:
    """Make the attention of `model` gather keys and values over the one-dimensional `mesh`, in place."""
    group, rank = mesh.get_group(), mesh.get_local_rank()

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **settings: Any
    ) -> tuple[Tensor, None]:
        if not module.training:
            # Every worker reads whole rows when it evaluates.
            return sdpa_attention_forward(module, query, key, value, mask, **settings)  # type: ignore[return-value]
        whole_key, whole_value = _Gather.apply(key, group, rank), _Gather.apply(value, group, rank)
        visible = _visible(settings["position_ids"], rank, group)
        out = F.scaled_dot_product_attention(
            query, whole_key, whole_value, attn_mask=visible, scale=settings["scaling"], enable_gqa=True
        )
        return out.transpose(1, 2).contiguous(), None

    AttentionInterface.register(_NAME, attend)
    AttentionMaskInterface.register(_NAME, partial(_mask_of_evaluation, model))
    model.set_attn_implementation(_NAME)


def local_sequence(batch: dict[str, Any], rank: int, parts: int) -> dict[str, Any]:
    """This worker's stretch of every row of a batch.

    Raises:
        RecipeError: the rows are padded, or their length is not divided evenly.
    """
    rows, length = batch["input_ids"].shape if "input_ids" in batch else (0, 0)
    if not length or "attention_mask" in batch or length % parts:
        raise RecipeError(
            "this batch cannot be divided along its length",
            expected=f"packed rows without a mask, of a length that {parts} divides",
            found=f"{sorted(batch)}, length {length}",
            action="use context 1 for this stage, or pack its rows",
        )
    positions = batch.get("position_ids", torch.arange(length).expand(rows, length))
    whole = {**batch, "position_ids": positions}
    size = length // parts
    own = slice(rank * size, (rank + 1) * size)
    part = {
        key: value[:, own] if isinstance(value, Tensor) and value.shape[:2] == (rows, length) else value
        for key, value in whole.items()
    }
    part["num_tokens"] = batch["num_tokens"] // parts
    return part


class _Gather(torch.autograd.Function):
    """Join the stretches of all workers along the length; backward sums what they want of each other's."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, group: dist.ProcessGroup, rank: int) -> Tensor:
        ctx.group, ctx.own = group, slice(rank * part.shape[2], (rank + 1) * part.shape[2])
        parts = [
            torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size(group))
        ]
        dist.all_gather(parts, part.contiguous(), group=group)
        return torch.cat(parts, dim=2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total[:, :, ctx.own].contiguous(), None, None


@torch.no_grad()
def _visible(positions: Tensor, rank: int, group: dist.ProcessGroup) -> Tensor:
    """Which keys each query sees, bool [rows, 1, own length, whole length]: earlier ones of the same document."""
    size = positions.shape[1]
    place = torch.arange(rank * size, (rank + 1) * size, device=positions.device)
    # A token's place minus its position is where its document begins: equal exactly within a document.
    own = (place - positions).contiguous()
    starts = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(starts, own, group=group)
    every = torch.cat(starts, dim=1)
    causal = torch.arange(every.shape[1], device=own.device) <= place[:, None]
    return ((own[:, :, None] == every[:, None, :]) & causal)[:, None]


def _mask_of_evaluation(model: nn.Module, *args: Any, **settings: Any) -> Tensor | None:
    return None if model.training else sdpa_mask(*args, **settings)
