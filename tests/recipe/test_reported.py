"""The report's recipes against the report: section 3.1's text and tokens of each model."""

import pytest

from qwenops_pipelines.recipes import load_recipe

# Section 3.1: 7 trillion tokens for the dense models; the relaxed set of 12 trillion for 0.5B alone. The mixture starts
# from the dense 7B.
TEXT = {
    "qwen2_0_5b": ("relaxed", 12),
    "qwen2_1_5b": ("strict", 7),
    "qwen2_7b": ("strict", 7),
    "qwen2_57b_a14b": ("strict", 7),
    "qwen2_72b": ("strict", 7),
}


@pytest.mark.parametrize("name", TEXT)
def test_recipe_of_the_report_trains_on_the_set_and_tokens_of_the_report(name):
    recipe = load_recipe(name, [])
    steps = recipe.pretrain.training.steps + recipe.extend.training.steps
    trillions = steps * recipe.pretrain.training.batch_tokens / 1e12
    assert (recipe.quality.keep, round(trillions, 3)) == TEXT[name]
