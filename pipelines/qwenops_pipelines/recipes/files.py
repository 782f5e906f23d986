"""Recipes in files: YAML or JSON, whole or as changes to another recipe.

A file of changes names what it changes as `base`, a shipped recipe or another file, and holds nothing but the fields
that differ. Mappings merge; anything else, lists included, takes the place of what was there.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qwenops.errors import RecipeError
from qwenops.recipe.codec import read_json

_BASE = "base"
# Of a hostile or mistaken file: a few lines of aliases hold more values than any memory.
_MOST_VALUES = 1_000_000
_NO_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


def read_plain(
    source: str, shipped: Sequence[str], load_shipped: Callable[[str], dict[str, Any]], _seen: tuple[Path, ...] = ()
) -> dict[str, Any]:
    """The plain fields of a whole recipe.

    Args:
        source: Name of a shipped recipe, a file, or JSON text.
        shipped: Names of the recipes that ship.
        load_shipped: The plain fields of one of them.

    Raises:
        RecipeError: there is no such recipe, or the text is none.
    """
    if source in shipped:
        return load_shipped(source)
    if source.lstrip().startswith("{"):
        own, where, folder, stem = read_json(source, "the recipe"), "the recipe", Path(), ""
    else:
        file = Path(source)
        text, where, folder, stem = _read(file, shipped), f"the recipe {source}", file.parent, file.stem
        own = read_json(text, where) if text.lstrip().startswith("{") else _read_yaml(text, where)
        if file.resolve() in _seen:
            raise RecipeError(
                f"{where} is its own base",
                expected="bases that end at a whole recipe",
                found=" -> ".join(str(one.name) for one in (*_seen, file)),
                action="name another base in one of them",
            )
        _seen = (*_seen, file.resolve())
    if not isinstance(own, dict):
        raise RecipeError(
            f"{where} is no recipe",
            expected="the fields of a recipe, or `base` and the fields that differ",
            found=f"a {type(own).__name__}",
            action="begin with a line such as `base: tiny`, or write it again from the recipe.json of a run",
        )
    if _BASE not in own:
        return own
    base = own.pop(_BASE)
    if not isinstance(base, str):
        raise RecipeError(
            f"{where} has no base",
            expected=f"one of {', '.join(shipped)}, or a file",
            found=repr(base),
            action="name the recipe that it changes",
        )
    below = base if base in shipped or base.lstrip().startswith("{") else str(folder / Path(base).expanduser())
    name = {"name": _NO_NAME.sub("-", stem).strip("-.")} if stem else {}
    return _merged(read_plain(below, shipped, load_shipped, _seen), name | own)


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    both = {key for key in old.keys() & new.keys() if isinstance(old[key], dict) and isinstance(new[key], dict)}
    return old | new | {key: _merged(old[key], new[key]) for key in both}


def _read(path: Path, shipped: Sequence[str]) -> str:
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"cannot read the recipe {path}",
            expected="YAML or JSON text in UTF-8",
            found=error,
            action="write it again from the recipe.json of a run",
        ) from None
    raise RecipeError(
        "unknown recipe",
        expected=f"one of {', '.join(shipped)}, or a YAML or JSON file",
        found=f"the folder {path}" if str(path) != "." and path.is_dir() else repr(str(path)),
        action="check the name",
    )


def _read_yaml(text: str, where: str) -> Any:
    """YAML 1.2 as far as JSON holds it; a date is text, and `1e-3` a number."""
    # Costs 30 ms that a recipe by name does not need.
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import SafeConstructor
    from ruamel.yaml.error import YAMLError

    class Constructor(SafeConstructor):
        pass

    Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)
    reader = YAML(typ="safe", pure=True)
    reader.Constructor = Constructor
    try:
        plain = reader.load(text)
        _check_size(plain)
        return read_json(json.dumps(plain), where)
    except (YAMLError, ValueError, TypeError, RecursionError) as error:
        raise RecipeError(
            f"{where} is no YAML that a recipe can be",
            expected="keys and values, each key once; text, finite numbers, true, false, null, lists and mappings",
            found=_first_words(error),
            action="correct the text there",
        ) from None


def _check_size(plain: Any) -> None:
    waiting, found = [plain], 0
    while waiting:
        value = waiting.pop()
        found += 1
        if found > _MOST_VALUES:
            raise ValueError(f"more than {_MOST_VALUES:,} values, of aliases within aliases")
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _first_words(error: Exception) -> str:
    """What a parser says and where, without its advice."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}: {problem}" if problem and mark else str(error)
