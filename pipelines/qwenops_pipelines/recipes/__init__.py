"""The recipes that ship, and `load_recipe`: a name or a file, with `--set` overrides, to one checked `Recipe`."""

import importlib
import json
from pathlib import Path
from typing import Any

from qwenops.errors import RecipeError
from qwenops.recipe.codec import canonical, decode
from qwenops.recipe.schema import Recipe

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
        name: A recipe's name, a file with its JSON text, or that text itself.
        overrides: Changes, in order.

    Raises:
        RecipeError: unknown recipe, unreadable file, unknown field or a value of the wrong kind.
    """
    plain = _plain(name)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals:
            raise RecipeError("bad --set", expected="path.to.field=value", found=override, action="write it with a =")
        _set(plain, path.split("."), text)
    return decode(Recipe, canonical(plain))


def _plain(name: str) -> dict[str, Any]:
    if name in RECIPES:
        module = importlib.import_module(f"qwenops_pipelines.recipes.{name}")
        return getattr(module, name)().model_dump(mode="json")
    if name.startswith("{"):
        return json.loads(name)
    path = Path(name)
    if not path.is_file():
        raise RecipeError(
            "unknown recipe",
            expected=f"one of {', '.join(RECIPES)}, or a JSON file",
            found=name,
            action="check the name",
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{path} is no recipe",
            expected="the JSON text of a recipe",
            found=error,
            action="write it again from recipe.json",
        ) from None


def _set(plain: dict[str, Any], path: list[str], text: str) -> None:
    """Set one field; the new text is read as JSON where it is JSON, else as a plain string."""
    owner: Any = plain
    for part in path[:-1]:
        if not isinstance(owner, dict) or part not in owner:
            raise RecipeError(
                f"unknown field {'.'.join(path)}",
                expected=f"one of {', '.join(owner) if isinstance(owner, dict) else 'nothing below'}",
                found=part,
                action="check the path of --set",
            )
        owner = owner[part]
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    owner[path[-1]] = value
