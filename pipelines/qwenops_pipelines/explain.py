"""What `qwenops explain PATH` says: the fields of a recipe at a path, each with type, default and source."""

import difflib
import inspect
import re
import shutil
import textwrap
from typing import Any, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic.fields import FieldInfo

from qwenops.errors import RecipeError
from qwenops.recipe.codec import canonical
from qwenops.recipe.config import Config
from qwenops.recipe.fields import bare_type, inner_type, kinds_of, type_name
from qwenops.recipe.schema import NODES, Recipe

_LIMITS = {
    Ge: "at least {0.ge}",
    Gt: "above {0.gt}",
    Le: "at most {0.le}",
    Lt: "below {0.lt}",
    MinLen: "length at least {0.min_length}",
    MaxLen: "length at most {0.max_length}",
}
_SHOWN = 200


def explain(path: str, recipe: Recipe | None = None) -> str:
    """The field at `path` and those below it, in the width of the terminal.

    Args:
        path: Names with dots between them; below a list the fields of its items, where they are of several kinds after
            a kind: `collect.sources.hub`. Places of items, as in `--set`, are left out. Empty for the stages.
        recipe: Whose values are shown beside the defaults.

    Raises:
        RecipeError: there is no such field.
    """
    steps = [step for step in re.sub(r"\[\d*\]", "", path).split(".") if step]
    owner: Any = Recipe
    field: FieldInfo | None = None
    value: Any = recipe
    for depth, step in enumerate(steps):
        below = inner_type(owner, step)
        if below is None:
            raise _unknown(owner, steps, depth)
        field = getattr(_item(owner), "model_fields", {}).get(step)
        value = getattr(value, step, None)
        owner = below
    path = ".".join(steps)
    if not path:
        return _stages()
    whole = hasattr(owner, "model_fields")
    shown = [
        f"{path}: {_sentence(owner)}" if whole or not field else _described(path, field, value, recipe is not None)
    ]
    item = _item(owner)
    if kinds := kinds_of(item):
        shown += [f"{path}.{kind}: {_sentence(member)}" for kind, member in kinds.items()]
    else:
        shown += [
            _described(f"{path}.{name}", below, getattr(value, name, None), isinstance(value, Config))
            for name, below in getattr(item, "model_fields", {}).items()
        ]
    return "\n\n".join(shown)


def _stages() -> str:
    lines = [f"{name:14} {_sentence(bare_type(Recipe.model_fields[name].annotation))}" for name in NODES]
    return "\n".join(
        ["A recipe has a name, a seed, and these stages; `qwenops explain STAGE` has their fields.", "", *lines]
    )


def _item(owner: Any) -> Any:
    """What a list is made of, else `owner` itself."""
    return bare_type(get_args(owner)[0]) if get_origin(owner) is tuple else owner


def _sentence(member: Any) -> str:
    return (inspect.getdoc(member) or "").partition("\n")[0]


def _described(path: str, field: FieldInfo, value: Any, has_value: bool) -> str:
    """The field's name, type, limits, default and value, and below them its description with its source."""
    if hasattr(bare_type(field.annotation), "model_fields"):
        facts = [f"fields, see {path}"]
    else:
        limits = [_LIMITS[type(limit)].format(limit) for limit in field.metadata if type(limit) in _LIMITS]
        default = field.get_default(call_default_factory=True)
        facts = [", ".join([type_name(field.annotation), *limits])]
        facts.append("must be given" if field.is_required() else f"default {_short(default)}")
        facts += [f"here {_short(value)}"] if has_value and value != default else []
    width = max(shutil.get_terminal_size((100, 24)).columns, 40)
    description = textwrap.fill(field.description or "", width, initial_indent="    ", subsequent_indent="    ")
    return f"{path}  ({'; '.join(facts)})\n{description}"


def _short(value: Any) -> str:
    items = (
        [one.model_dump(mode="json") if isinstance(one, Config) else one for one in value]
        if isinstance(value, tuple)
        else value
    )
    text = canonical(items)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _unknown(owner: Any, steps: list[str], depth: int) -> RecipeError:
    item = _item(owner)
    known = list(NODES) if owner is Recipe else [*kinds_of(item), *getattr(item, "model_fields", {})]
    near = difflib.get_close_matches(steps[depth], known, n=1)
    return RecipeError(
        f"unknown field {'.'.join(steps[: depth + 1])}",
        expected=f"one of {', '.join(known)}" if known else f"{'.'.join(steps[:depth])} alone: it has no fields",
        found=steps[depth],
        action=f"did you mean {near[0]}?" if near else "check the path",
    )
