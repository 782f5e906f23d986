"""The recipes that ship, and `load_recipe`: a name or a file, with `--set` overrides, to one checked `Recipe`."""

import importlib
import sys
from typing import Any

from qwenops.recipe.codec import canonical
from qwenops.recipe.schema import Recipe, read_recipe
from qwenops_pipelines.recipes.files import read_plain
from qwenops_pipelines.recipes.overrides import override

RECIPES: tuple[str, ...] = (
    "smoke",
    "tiny",
    "smol",
    "qwen2_0_5b",
    "qwen2_1_5b",
    "qwen2_7b",
    "qwen2_57b_a14b",
    "qwen2_72b",
)


def load_recipe(name: str, overrides: list[str]) -> Recipe:
    """Return the recipe called `name`, changed by `path.to.field=value` overrides.

    Args:
        name: A recipe's name, a YAML or JSON file of a recipe or of changes to one (`files`), or such JSON text itself.
        overrides: Changes, in order.

    Raises:
        RecipeError: unknown recipe, unreadable file, unknown field or a value of the wrong kind.
    """
    plain = read_plain(name, RECIPES, _shipped)
    for change in overrides:
        override(plain, change)
    return read_recipe(canonical(plain))


def purpose(name: str) -> str:
    """What a shipped recipe is for: the first sentence of its module."""
    importlib.import_module(f"{__name__}.{name}")
    sentence, _, _ = (sys.modules[f"{__name__}.{name}"].__doc__ or "").partition("\n")
    return sentence.partition(": ")[2] or sentence


def _shipped(name: str) -> dict[str, Any]:
    module = importlib.import_module(f"{__name__}.{name}")
    return getattr(module, name)().model_dump(mode="json")
