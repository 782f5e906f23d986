"""Training on several workers, applied from outside the model.

Every worker reads its own rows (`data_parallel_rank`). Each term of its loss counts by its share of the step
(`terms.py`), so that the update equals the one a single process would make of the whole batch. Weights are either whole
on every worker (the gradients are then summed here) or sharded with FSDP2 (`apply_parallelism`), which sums and
scatters them itself.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Partial
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from qwenops.errors import RecipeError
from qwenops.recipe.mesh import ParallelConfig
from qwenops.training.context_parallel import apply_context_parallel, local_sequence
from qwenops.training.expert_parallel import apply_expert_parallel
from qwenops.training.mesh import DeviceLayout, build_layout, check_mesh
from qwenops.training.terms import MetricSums, add_metric_sums

# How each projection of a layer is divided over the tensor dimension: by heads, by feed-forward columns. A layer has
# the names of a dense or of a mixture's feed-forward part.
_TENSOR_PLAN = {
    "self_attn.q_proj": ColwiseParallel,
    "self_attn.k_proj": ColwiseParallel,
    "self_attn.v_proj": ColwiseParallel,
    "self_attn.o_proj": RowwiseParallel,
    "mlp.gate_proj": ColwiseParallel,
    "mlp.up_proj": ColwiseParallel,
    "mlp.down_proj": RowwiseParallel,
    "mlp.shared_expert.gate_proj": ColwiseParallel,
    "mlp.shared_expert.up_proj": ColwiseParallel,
    "mlp.shared_expert.down_proj": RowwiseParallel,
}
# The mesh of this process, as there is one default process group; None while every worker has rows of its own.
_layout: DeviceLayout | None = None
_ALL_SHARDED = ParallelConfig()
Item = TypeVar("Item")


@dataclass(frozen=True)
class WorkerRank:
    """Where this process trains: its rank, the number of workers, "cpu" or "cuda:0"."""

    rank: int
    world_size: int
    kind: str


def worker_rank() -> WorkerRank:
    """This process's place in the worker group; alone when torch.distributed is not set up."""
    kind = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    if not is_distributed():
        return WorkerRank(0, 1, kind)
    return WorkerRank(dist.get_rank(), dist.get_world_size(), kind)


def is_distributed() -> bool:
    """Whether several workers train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def data_parallel_rank() -> WorkerRank:
    """Which rows this worker reads: workers that share a row along its length or its heads have the same place."""
    here = worker_rank()
    if _layout is None:
        return here
    rows = _layout.rows["rows"]
    return WorkerRank(rows.get_local_rank(), rows.size(), here.kind)


def local_rows(rows: Sequence[Item]) -> list[Item]:
    """This worker's rows (or pairs) of a step whose rows all workers know: every n-th, of n workers.

    Raises:
        RecipeError: a worker would have none.
    """
    here = data_parallel_rank()
    if len(rows) < here.world_size:
        raise RecipeError(
            "a step has fewer rows than there are workers",
            expected=f"at least {here.world_size} rows or pairs in a step, one for each worker",
            found=len(rows),
            action="use fewer workers, or more rows or pairs per step",
        )
    return list(rows[here.rank :: here.world_size])


def apply_parallelism(model: Any, parallel: ParallelConfig = _ALL_SHARDED, length: int = 0) -> None:
    """Divide a `*ForCausalLM` over all workers, in place; nothing when this process is alone.

    Layers are gathered one by one as the decoder body runs. The output weight is gathered by `full_tensor`.

    Args:
        model: Whole weights, equal on every worker.
        parallel: The mesh; by default FSDP2 over all workers.
        length: Tokens of a row, checked against the context dimension.

    Raises:
        RecipeError: the mesh does not fit the workers or the model.
    """
    global _layout
    if not is_distributed():
        return
    _layout = build_layout(check_mesh(parallel, model.config, dist.get_world_size(), length))
    resolved, weights = _layout.parallel, _layout.weights
    body, head = model.model, model.get_output_embeddings()
    tied = head.weight is model.get_input_embeddings().weight
    for layer in body.layers:
        if resolved.tensor > 1:
            _divide_tensors(layer, _layout.mesh["tensor"])
        fully_shard(layer, mesh=weights)
    # Sharded again after every forward pass, else an optimiser built after an evaluation would hold gathered weights.
    fully_shard(body, mesh=weights, reshard_after_forward=True)
    if tied:
        head.weight = model.get_input_embeddings().weight
    else:
        fully_shard(head, mesh=weights)
    if resolved.context > 1:
        apply_context_parallel(model, _layout.rows["context"])


def context_parallel_size() -> int:
    """Workers that share each row along its length."""
    return _layout.parallel.context if _layout else 1


def local_part(batch: dict[str, Any]) -> dict[str, Any]:
    """This worker's part of a batch that it shares with others along the rows' length; else the batch itself."""
    if _layout is None or context_parallel_size() == 1:
        return batch
    context = _layout.rows["context"]
    return local_sequence(batch, context.get_local_rank(), context.size())


def is_sharded(model: nn.Module) -> bool:
    """Whether `apply_parallelism` has divided this model's weights."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def full_tensor(weight: Tensor) -> Tensor:
    """`weight`, gathered from all workers where it is sharded; gradients through it are averaged as FSDP2 does."""
    if not isinstance(weight, DTensor):
        return weight
    return weight.full_tensor(grad_placements=[Partial("avg")] * weight.device_mesh.ndim)


def full_state_dict(model: nn.Module) -> dict[str, Any]:
    """The unsharded state dict, on the CPU; complete on rank 0. Every worker must call it."""
    if not is_sharded(model):
        return model.state_dict()
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def all_reduce_sums(values: Sequence[float]) -> list[float]:
    """Sums of as many numbers over all workers, those that compute the same part of a row counted once."""
    if not is_distributed():
        return list(values)
    totals = torch.tensor(values, dtype=torch.float64, device=worker_rank().kind)
    dist.all_reduce(totals)
    return [total / _num_equal() for total in totals.tolist()]


def all_gather_metrics(own: MetricSums) -> dict[str, tuple[float, float]]:
    """Figures (sum, count) added up over all workers, of which each may have names of its own."""
    every: list[Any] = [own]
    if is_distributed():
        every = [None] * dist.get_world_size()
        dist.all_gather_object(every, own)
    return add_metric_sums(every)


def barrier_seconds() -> float:
    """Seconds that some worker waited here for the slowest one; 0 for a process alone. Every worker must call it."""
    if not is_distributed():
        return 0.0
    kind = worker_rank().kind
    if kind != "cpu":
        # Else a worker's own queue would count as waiting for the others.
        torch.cuda.synchronize()
    began, meeting = time.perf_counter(), torch.zeros((), device=kind)
    dist.all_reduce(meeting)
    # On a GPU a collective has only been launched by then; asking for its result waits for it.
    meeting.item()
    waited = torch.tensor(time.perf_counter() - began, dtype=torch.float64, device=kind)
    dist.all_reduce(waited, dist.ReduceOp.MAX)
    return float(waited)


@torch.no_grad()
def all_reduce_gradients(model: nn.Module) -> None:
    """Make every gradient the sum over the workers.

    FSDP2 has already averaged what it shards, so those are scaled back; whole weights are summed here.
    """
    if not is_distributed():
        return
    size = dist.get_world_size() // _num_equal()
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


@torch.no_grad()
def clip_gradients(model: nn.Module, most: float) -> float:
    """Scale all gradients so that their global norm is at most `most`; returns the norm before."""
    by_mesh: dict[Any, list[Tensor]] = {}
    for parameter in model.parameters():
        if parameter.grad is not None:
            mesh = parameter.grad.device_mesh if isinstance(parameter.grad, DTensor) else None
            by_mesh.setdefault(mesh, []).append(parameter.grad)
    if len(by_mesh) <= 1:
        return float(nn.utils.clip_grad_norm_(model.parameters(), most))
    # Projections divided over the tensor dimension lie on a larger mesh than the rest: a norm for each, then together.
    norms = [nn.utils.get_total_norm(gradients) for gradients in by_mesh.values()]
    total = torch.stack([norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]).norm()
    for gradients in by_mesh.values():
        for gradient in gradients:
            gradient.mul_(torch.clamp(most / (total + 1e-6), max=1.0))
    return float(total)


def _divide_tensors(layer: nn.Module, mesh: DeviceMesh) -> None:
    named = dict(layer.named_modules())
    parallelize_module(layer, mesh, {name: style() for name, style in _TENSOR_PLAN.items() if name in named})
    if "mlp.experts" in named:
        apply_expert_parallel(named["mlp.experts"], mesh)


def _num_equal() -> int:
    return _layout.parallel.tensor if _layout else 1
