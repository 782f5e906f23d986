"""The recipes that ship, and `load_recipe`: a name or a file, with `--set` overrides, to one checked `Recipe`."""

import importlib
import json
import os
from pathlib import Path
from typing import Any

from qwenops.errors import RecipeError
from qwenops.recipe.codec import canonical, read_json
from qwenops.recipe.schema import Recipe, read_recipe

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
        _set(plain, path, text)
    return read_recipe(canonical(plain))


def _plain(name: str) -> dict[str, Any]:
    if name in RECIPES:
        module = importlib.import_module(f"qwenops_pipelines.recipes.{name}")
        return getattr(module, name)().model_dump(mode="json")
    text, where = (name, "the recipe") if name.startswith("{") else (_read(Path(name)), f"the recipe {name}")
    plain = read_json(text, where)
    if not isinstance(plain, dict):
        raise RecipeError(
            f"{where} is no recipe",
            expected="one JSON object with the fields of a recipe",
            found=f"a {type(plain).__name__}",
            action="write it again from the recipe.json of a run",
        )
    return plain


def _read(path: Path) -> str:
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"cannot read the recipe {path}",
            expected="JSON text in UTF-8",
            found=error,
            action="write it again from the recipe.json of a run",
        ) from None
    raise RecipeError(
        "unknown recipe",
        expected=f"one of {', '.join(RECIPES)}, or a JSON file",
        found=f"the folder {path}" if str(path) != "." and path.is_dir() else repr(str(path)),
        action="check the name",
    )


def _set(plain: dict[str, Any], path: str, text: str) -> None:
    """Set one field; the new text is read as JSON where it is JSON, else as a plain string or a path below the home."""
    owner: Any = plain
    *parents, field = path.split(".")
    for depth, part in enumerate((*parents, field)):
        if not isinstance(owner, dict):
            whole = ".".join(path.split(".")[:depth])
            raise RecipeError(
                f"unknown field {path}",
                expected=f"{whole} as a whole: it is {'a list' if isinstance(owner, list) else 'one value'}",
                found=part,
                action=f"--set '{whole}={'[...]' if isinstance(owner, list) else 'VALUE'}'",
            )
        if depth < len(parents):
            owner = _field(owner, part, path)
    owner[field] = _value(path, text)


def _field(owner: dict[str, Any], part: str, path: str) -> Any:
    if part not in owner:
        raise RecipeError(
            f"unknown field {path}",
            expected=f"one of {', '.join(owner)}",
            found=part,
            action="check the path of --set",
        )
    return owner[part]


def _value(path: str, text: str) -> Any:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        # A shell leaves it to us: it expands ~ at the begin of a word alone.
        return os.path.expanduser(text) if text.startswith("~/") else text
    except (ValueError, RecursionError):
        # JSON that Python cannot hold, such as a number of five thousand digits; said below.
        pass
    return read_json(text, f"--set {path}")
