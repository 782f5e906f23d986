"""The `qwen2_0_5b` recipe: Qwen2-0.5B of the report, base and instruct.

What it reproduces: sections 2.2.3 (size), 3.1 (12 trillion tokens), 3.2 (4,096 tokens, then 32,768 under a RoPE base
of 1,000,000) and 4 (post-training). Hardware: one node of eight GPUs. Needs `collect.sources` of that size and the
benchmarks' folders (`reported.py`). Command: `qwenops compile qwen2_0_5b --placement h200_node -o qwen2_0_5b.yaml`.
Not run by this project.

The smallest model, and the only one trained on the relaxed set of text, 12 trillion tokens (section 3.1 says that this
set did not help the others).
"""

from qwenops.model import sizes
from qwenops.recipe.schema import Recipe
from qwenops_pipelines.recipes.reported import TRILLION, reported


def qwen2_0_5b() -> Recipe:
    """Return the recipe of Qwen2-0.5B."""
    return reported("qwen2_0_5b", sizes.qwen2_0_5b(), tokens=12 * TRILLION, text="relaxed")
