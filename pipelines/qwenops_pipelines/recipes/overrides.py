"""`--set path.to.field=value`: one field of a recipe, or of an item of a list: `collect.sources[0].cap_bytes=1`."""

import json
import os
import re
from typing import Any

from qwenops.errors import RecipeError
from qwenops.recipe.codec import read_json

_STEP = re.compile(r"(?P<name>[^.\[\]]+)(?P<places>(\[\d+\])*)")


def override(plain: dict[str, Any], change: str) -> None:
    """Make one change in place; its text is read as JSON where it is JSON, else as text, or a path below the home.

    Raises:
        RecipeError: no such field, or no change.
    """
    path, equals, text = change.partition("=")
    if not equals:
        raise RecipeError("bad --set", expected="path.to.field=value", found=change, action="write it with a =")
    owner: Any = plain
    *parents, last = _steps(path)
    walked = ""
    for step in parents:
        owner = _below(owner, step, path, walked)
        walked = _joined(walked, step)
    _check_owner(owner, last, path, walked)
    if isinstance(last, int):
        _below(owner, last, path, walked)
    owner[last] = _value(path, text)


def _steps(path: str) -> list[str | int]:
    steps: list[str | int] = []
    for part in path.split("."):
        matched = _STEP.fullmatch(part)
        if not matched:
            raise RecipeError(
                f"unknown field {path}",
                expected="names with a dot between them, and [0] for the first item of a list",
                found=part,
                action="check the path of --set",
            )
        steps += [matched["name"], *(int(place) for place in re.findall(r"\d+", matched["places"]))]
    return steps


def _joined(walked: str, step: str | int) -> str:
    return f"{walked}[{step}]" if isinstance(step, int) else f"{walked}.{step}".lstrip(".")


def _check_owner(owner: Any, step: str | int, path: str, walked: str) -> None:
    """That `owner` is what a step goes below: a mapping for a name, a list for a place."""
    if isinstance(owner, list if isinstance(step, int) else dict):
        return
    if isinstance(owner, list):
        what, action = "a list", f"--set '{walked}[0].FIELD=VALUE', or '{walked}=[...]' for all of it"
    else:
        what, action = ("fields" if isinstance(owner, dict) else "one value"), f"--set '{walked}=VALUE'"
    raise RecipeError(
        f"unknown field {path}",
        expected=f"{walked} as a whole: it is {what}",
        found=step if isinstance(step, str) else f"[{step}]",
        action=action,
    )


def _below(owner: Any, step: str | int, path: str, walked: str) -> Any:
    _check_owner(owner, step, path, walked)
    if isinstance(step, int) and step >= len(owner):
        raise RecipeError(
            f"unknown field {path}",
            expected=f"{walked}[0] to {walked}[{len(owner) - 1}]" if owner else f"an item of {walked}, which is empty",
            found=f"[{step}]",
            action=f"--set '{walked}=[...]' for another list",
        )
    if isinstance(step, str) and step not in owner:
        raise RecipeError(
            f"unknown field {path}",
            expected=f"one of {', '.join(owner)}",
            found=step,
            action="check the path of --set",
        )
    return owner[step]


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
