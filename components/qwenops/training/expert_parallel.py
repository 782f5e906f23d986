"""Expert parallelism: each worker of the tensor dimension holds whole experts, and sees every token of its group.

Tokens are routed by all workers alike. Each one computes those that chose its own experts and the results are summed,
as behind a row-wise projection; no token travels, since the workers of a tensor group hold the same activations anyway.
The chosen tokens are gathered here, although transformers' expert functions can be told to skip the others: its grouped
one (5.23, on a CPU) leaves the skipped rows' gradients undefined.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor


def apply_expert_parallel(experts: Any, mesh: DeviceMesh) -> None:
    """Divide the stacked weights of a `*Experts` module over the one-dimensional `mesh`, in place."""
    for name, weight in list(experts.named_parameters(recurse=False)):
        setattr(experts, name, nn.Parameter(distribute_tensor(weight.detach(), mesh, [Shard(0)])))
    group, own = mesh.get_group(), experts.num_experts // mesh.size()
    first = own * mesh.get_local_rank()

    def forward(hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        mine = (chosen >= first) & (chosen < first + own)
        if not bool(mine.any()):
            # One token without weight, so that this worker takes part in every collective of the backward pass.
            mine[0, 0] = True
            weights, chosen = weights * (~mine), chosen.masked_fill(mine, first)
        token, choice = mine.nonzero(as_tuple=True)
        hidden, weights = _SumBackward.apply(hidden, group), _SumBackward.apply(weights, group)
        picked = hidden[token], (chosen - first)[token, choice, None], weights[token, choice, None]
        part = torch.zeros_like(hidden).index_add(0, token, _with_own(experts, own, *picked))
        return _SumForward.apply(part, group)

    experts.forward = forward


def _with_own(experts: Any, count: int, *arguments: Tensor) -> Tensor:
    """The module's own forward with this worker's experts in place of all."""
    divided, whole = dict(experts._parameters), experts.num_experts
    experts._parameters.update(
        {name: value.to_local() if isinstance(value, DTensor) else value for name, value in divided.items()}
    )
    experts.num_experts = count
    try:
        return type(experts).forward(experts, *arguments)
    finally:
        experts._parameters.update(divided)
        experts.num_experts = whole


class _SumForward(torch.autograd.Function):
    """The sum over a group; the gradient of each part is that of the sum."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, group: dist.ProcessGroup) -> Tensor:  # type: ignore[override]
        total = part.contiguous().clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _SumBackward(torch.autograd.Function):
    """The same on every worker of a group; the gradient is the sum of what each part of them gives."""

    @staticmethod
    def forward(ctx: Any, same: Tensor, group: dist.ProcessGroup) -> Tensor:  # type: ignore[override]
        ctx.group = group
        return same.view_as(same)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None
