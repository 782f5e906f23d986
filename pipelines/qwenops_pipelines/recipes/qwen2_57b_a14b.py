"""The `qwen2_57b_a14b` recipe: Qwen2-57B-A14B of the report, upcycled from Qwen2-7B.

What it reproduces: section 2.2.2 (64 routed experts of width 2,560, 8 active, shared experts of 20,480 together, half
of each expert drawn afresh) and 3.1 (4.5 trillion tokens after the 7B model's 7). The dense part is the `qwen2_7b`
recipe, whose checkpoint `upcycle` starts from; alignment continues from the dense model. Hardware: tens of nodes of
eight GPUs. Command: `qwenops compile qwen2_57b_a14b --placement h200_node -o qwen2_57b_a14b.yaml`. Not run by this
project.

The released mixture has 151,936 embedding rows and the 7B model 152,064; this one keeps the dense model's. Where the
dense weights exist already, `qwenops upcycle DENSE OUT` makes the mixture's starting point on one machine.
"""

from qwenops.model import sizes
from qwenops.model.sizes import Experts
from qwenops.recipe.schema import Recipe
from qwenops_pipelines.recipes.reported import TRILLION, reported


def qwen2_57b_a14b() -> Recipe:
    """Return the recipe of Qwen2-57B-A14B."""
    return reported(
        "qwen2_57b_a14b",
        sizes.qwen2_7b(),
        tokens=7 * TRILLION,
        experts=Experts(),
        upcycle_tokens=4_500_000_000_000,
    )
