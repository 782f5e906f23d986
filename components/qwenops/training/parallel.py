"""Data-parallel training, applied from outside the model.

Every worker reads its own rows. A worker's loss counts by its share of all targets, so that the update equals the one
a single process would make of the whole batch. Weights are either whole on every worker (the gradients are then summed
here) or sharded with FSDP2 (`shard`), which sums and scatters them itself.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Partial


@dataclass(frozen=True)
class Place:
    """Where this process trains: its rank, the number of workers, "cpu" or "cuda:0"."""

    rank: int
    world_size: int
    kind: str


def place() -> Place:
    """This process's place in the worker group; alone when torch.distributed is not set up."""
    kind = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    if not is_distributed():
        return Place(0, 1, kind)
    return Place(dist.get_rank(), dist.get_world_size(), kind)


def is_distributed() -> bool:
    """Whether several workers train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def shard(model: Any) -> None:
    """Shard a `*ForCausalLM` over all workers with FSDP2, in place; nothing when this process is alone.

    Layers are gathered one by one as the decoder body runs. The output weight is gathered by `whole`.
    """
    if not is_distributed():
        return
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for layer in model.model.layers:
        fully_shard(layer)
    # Sharded again after every forward pass, else an optimiser built after an evaluation would hold gathered weights.
    fully_shard(model.model, reshard_after_forward=True)
    if tied:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    else:
        fully_shard(model.get_output_embeddings())


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` has divided this model's weights."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def whole(weight: Tensor) -> Tensor:
    """`weight`, gathered from all workers where it is sharded; gradients through it are averaged as FSDP2 does."""
    if not isinstance(weight, DTensor):
        return weight
    return weight.full_tensor(grad_placements=[Partial("avg")])


def whole_state(model: nn.Module) -> dict[str, Any]:
    """The unsharded state dict, on the CPU; complete on rank 0. Every worker must call it."""
    if not is_sharded(model):
        return model.state_dict()
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def global_sum(value: float) -> float:
    """Sum of a number over all workers."""
    if not is_distributed():
        return value
    total = torch.tensor(value, dtype=torch.float64, device=place().kind)
    dist.all_reduce(total)
    return float(total)


@torch.no_grad()
def sum_gradients(model: nn.Module) -> None:
    """Make every gradient the sum over the workers.

    FSDP2 has already averaged what it shards, so those are scaled back; whole weights are summed here.
    """
    if not is_distributed():
        return
    size = dist.get_world_size()
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if isinstance(parameter, DTensor):
            if parameter.grad is not None:
                parameter.grad.mul_(size)
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
