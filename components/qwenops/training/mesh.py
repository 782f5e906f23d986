"""A mesh of workers, from the placement's `ParallelConfig` and the model it divides."""

from dataclasses import dataclass

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from transformers import PretrainedConfig

from qwenops.recipe.mesh import Divisible, ParallelConfig, check_division


def check_mesh(parallel: ParallelConfig, model: PretrainedConfig, num_workers: int, length: int = 0) -> ParallelConfig:
    """Check a mesh against a model and a row's length before anything starts; returns it with `shard` filled in.

    Raises:
        RecipeError: something is not divided evenly; names it.
    """
    experts = getattr(model, "num_experts", 0)
    width = model.shared_expert_intermediate_size if experts else model.intermediate_size
    heads = model.num_attention_heads, model.num_key_value_heads
    return check_division(parallel, Divisible(*heads, width, experts, length), num_workers)


@dataclass(frozen=True)
class DeviceLayout:
    """A built mesh.

    Attributes:
        parallel: Its sizes.
        mesh: Dimensions replicate, shard (context included) and tensor.
        rows: Dimensions rows, context and tensor over the same workers, for what divides rows.
    """

    parallel: ParallelConfig
    mesh: DeviceMesh
    rows: DeviceMesh

    @property
    def weights(self) -> DeviceMesh:
        """The part of the mesh that FSDP2 divides weights over."""
        return self.mesh["replicate", "shard"] if self.parallel.replicate > 1 else self.mesh["shard"]


def build_layout(parallel: ParallelConfig) -> DeviceLayout:
    """Make the meshes; every worker must call it, with a `ParallelConfig` that is resolved."""
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    divided = parallel.shard * parallel.context
    mesh = init_device_mesh(
        kind, (parallel.replicate, divided, parallel.tensor), mesh_dim_names=("replicate", "shard", "tensor")
    )
    rows = init_device_mesh(
        kind,
        (parallel.replicate * parallel.shard, parallel.context, parallel.tensor),
        mesh_dim_names=("rows", "context", "tensor"),
    )
    return DeviceLayout(parallel, mesh, rows)
