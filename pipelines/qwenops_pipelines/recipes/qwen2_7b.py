"""The `qwen2_7b` recipe: Qwen2-7B of the report, base and instruct.

What it reproduces: sections 2.2.3 (size), 3.1 (7 trillion tokens), 3.2 (4,096 tokens, then 32,768 under a RoPE base of
1,000,000) and 4 (post-training). Hardware: several nodes of eight GPUs. Needs `collect.sources` of that size and the
benchmarks' folders (`reported.py`). Command: `qwenops compile qwen2_7b --placement h200_node -o qwen2_7b.yaml`. Not
run by this project.
"""

from qwenops.model import sizes
from qwenops.recipe.schema import Recipe
from qwenops_pipelines.recipes.reported import TRILLION, reported


def qwen2_7b() -> Recipe:
    """Return the recipe of Qwen2-7B."""
    return reported("qwen2_7b", sizes.qwen2_7b(), tokens=7 * TRILLION)
