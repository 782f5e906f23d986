"""The `qwen2_72b` recipe: Qwen2-72B of the report, base and instruct.

What it reproduces: sections 2.2.3 (size), 3.1 (7 trillion tokens), 3.2 (4,096 tokens, then 32,768 under a RoPE base of
1,000,000) and 4 (post-training). Hardware: tens of nodes of eight GPUs. Needs `collect.sources` of that size and the
benchmarks' folders (`reported.py`). Command: `qwenops compile qwen2_72b --placement h200_node -o qwen2_72b.yaml`. Not
run by this project.

The peak rate is half of the smaller models' (house choice: Qwen1 gives rates up to 14B, all 3e-4; wider models
take less).
"""

from qwenops.model import sizes
from qwenops.recipe.schema import Recipe
from qwenops_pipelines.recipes.reported import TRILLION, reported


def qwen2_72b() -> Recipe:
    """Return the recipe of Qwen2-72B."""
    return reported("qwen2_72b", sizes.qwen2_72b(), tokens=7 * TRILLION, learning_rate=1.5e-4)
