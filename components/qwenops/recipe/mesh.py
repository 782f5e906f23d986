"""`ParallelConfig`: how the workers of a training loop divide a model and its rows among themselves.

| dimension | divides | needs |
|---|---|---|
| replicate | rows; weights are whole in each replica (HSDP) | |
| shard | rows, and weights, gradients and moments (FSDP2) | |
| context | each row along its length | packed rows whose length it divides |
| tensor | attention heads, feed-forward width, whole experts | all divided evenly |

The product is the number of workers. It belongs to a placement and never to a recipe: losses and gradients are those of
one process.
"""

from dataclasses import dataclass

from pydantic import Field

from qwenops.errors import RecipeError
from qwenops.recipe.codec import canonical
from qwenops.recipe.config import Config


class ParallelConfig(Config):
    """Sizes of the mesh's dimensions; `shard` 0 takes the workers that the others leave."""

    replicate: int = Field(
        default=1, ge=1, description="Copies of the weights; house choice: one, which takes least memory."
    )
    shard: int = Field(
        default=0, ge=0, description="Workers per copy of weights, 0: the rest; house choice: FSDP2 for all."
    )
    context: int = Field(
        default=1, ge=1, description="Workers per row; house choice: 1, rows fit while layers are recomputed."
    )
    tensor: int = Field(
        default=1, ge=1, description="Workers per layer; house choice: 1, it talks most between workers."
    )

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
        return self.model_copy(update={"shard": shard})


def mesh_text(parallel: ParallelConfig) -> str:
    """`parallel` as canonical JSON, for a context; empty when it is the default."""
    return "" if parallel == ParallelConfig() else canonical(parallel)


@dataclass(frozen=True)
class Divisible:
    """What a mesh divides of a model and its rows.

    Attributes:
        query_heads: Query heads.
        kv_heads: Key-value heads.
        width: Width of the feed-forward layer, of the shared expert in a mixture.
        experts: Experts of a layer; 0 in a dense model.
        length: Tokens of a row, or the greatest common divisor of several lengths; 0 when unknown.
    """

    query_heads: int
    kv_heads: int
    width: int
    experts: int = 0
    length: int = 0


def check_division(parallel: ParallelConfig, model: Divisible, num_workers: int) -> ParallelConfig:
    """Check a mesh before anything starts; returns it with `shard` filled in.

    Raises:
        RecipeError: something is not divided evenly; names it.
    """
    resolved = parallel.resolved(num_workers)
    divided = {
        "query heads": (model.query_heads, resolved.tensor, "tensor"),
        "key-value heads": (model.kv_heads, resolved.tensor, "tensor"),
        "feed-forward width": (model.width, resolved.tensor, "tensor"),
        "experts": (model.experts, resolved.tensor, "tensor"),
        "row length": (model.length, resolved.context, "context"),
    }
    for name, (count, parts, dimension) in divided.items():
        if count % parts:
            raise RecipeError(
                f"the mesh does not divide the {name}",
                expected=f"a {dimension} dimension that divides {count}",
                found=parts,
                action=f"choose another {dimension} dimension",
            )
    return resolved
