"""`ParallelConfig`: how the workers of a loop divide a model and its rows among themselves.

| dimension | divides | needs |
|---|---|---|
| replicate | rows; weights are whole in each replica (HSDP) | |
| shard | rows, and weights, gradients and moments (FSDP2) | |
| context | each row along its length | packed rows whose length it divides |
| tensor | attention heads and feed-forward width | both divided evenly |

The product is the number of workers. Where the mesh lies is a matter of the placement and never of the recipe: losses
and gradients are those of one process.
"""

from dataclasses import dataclass

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from transformers import PretrainedConfig

from qwenops.errors import RecipeError


@dataclass(frozen=True)
class ParallelConfig:
    """Sizes of the mesh's dimensions; `shard` 0 takes the workers that the others leave."""

    replicate: int = 1
    shard: int = 0
    context: int = 1
    tensor: int = 1

    def resolved(self, num_workers: int) -> "ParallelConfig":
        """The same with `shard` filled in.

        Raises:
            RecipeError: the dimensions' product is not the number of workers.
        """
        others = self.replicate * self.context * self.tensor
        shard = self.shard or max(num_workers // others, 1)
        if others * shard != num_workers:
            raise RecipeError(
                "the mesh does not fit the workers",
                expected=f"replicate x shard x context x tensor = {num_workers} workers",
                found=f"{self.replicate} x {shard} x {self.context} x {self.tensor} = {others * shard}",
                action="change the placement's workers or the mesh",
            )
        return ParallelConfig(self.replicate, shard, self.context, self.tensor)


def check_mesh(parallel: ParallelConfig, model: PretrainedConfig, num_workers: int, length: int = 0) -> ParallelConfig:
    """Check a mesh against a model and a row's length before anything starts; returns it with `shard` filled in.

    Raises:
        RecipeError: something is not divided evenly; names it.
    """
    resolved = parallel.resolved(num_workers)
    divided = {
        "query heads": (model.num_attention_heads, resolved.tensor, "tensor"),
        "key-value heads": (model.num_key_value_heads, resolved.tensor, "tensor"),
        "feed-forward width": (model.intermediate_size, resolved.tensor, "tensor"),
        "row length": (length, resolved.context, "context"),
    }
    for name, (count, parts, dimension) in divided.items():
        if count % parts:
            raise RecipeError(
                f"the mesh does not divide the {name}",
                expected=f"a {dimension} dimension that divides {count}",
                found=parts,
                action=f"choose another {dimension} dimension",
            )
    if resolved.tensor > 1 and getattr(model, "num_experts", 0):
        raise RecipeError(
            "tensor parallelism does not know experts",
            expected="tensor 1 for a mixture of experts",
            found=resolved.tensor,
            action="divide a mixture over shard and context alone",
        )
    return resolved


@dataclass(frozen=True)
class Layout:
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


def build_layout(parallel: ParallelConfig) -> Layout:
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
    return Layout(parallel, mesh, rows)
