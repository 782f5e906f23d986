"""Data-parallel training, applied from outside the model.

Every worker reads its own rows. Gradients are averaged over workers with each worker's loss weighted by its share of
all targets, so that the update equals the one a single process would make of the whole batch.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn


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


def global_sum(value: float) -> float:
    """Sum of a number over all workers."""
    if not is_distributed():
        return value
    total = torch.tensor(value, dtype=torch.float64, device=place().kind)
    dist.all_reduce(total)
    return float(total)


@torch.no_grad()
def sum_gradients(model: nn.Module) -> None:
    """Add up every parameter's gradient over the workers."""
    if not is_distributed():
        return
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
