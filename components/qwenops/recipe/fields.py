"""The fields of a config by their path, as recipes, `--set` and `qwenops explain` write it: `sft.training.steps`."""

import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo


def known_fields(config_class: Any, path: Sequence[str | int]) -> list[str]:
    """Names of the fields at `path`, sorted; none where no config lies there.

    Args:
        config_class: Where the path begins.
        path: Names of fields, with an index for an item of a sequence and a `kind` for a member of a union.
    """
    owner: Any = config_class
    for step in path:
        owner = inner_type(owner, step)
    return sorted(getattr(owner, "model_fields", {}))


def inner_type(owner: Any, step: str | int) -> Any:
    """The type at one step below `owner`, without its metadata and without "or None"; None where there is none."""
    fields = getattr(owner, "model_fields", {})
    if step in fields:
        return bare_type(fields[step].annotation)
    item = bare_type(get_args(owner)[0]) if get_origin(owner) is tuple else owner
    if isinstance(step, int):
        return item
    # Fields and kinds of a sequence's items are told without a place, too.
    return kinds_of(item)[step] if step in kinds_of(item) else inner_type(item, step) if item is not owner else None


def kinds_of(annotation: Any) -> dict[str, Any]:
    """Of a union of configs that their field `kind` tells apart: each kind and its class."""
    members = get_args(bare_type(annotation))
    found = {member: getattr(member, "model_fields", {}).get("kind") for member in members}
    return {field.default: member for member, field in found.items() if isinstance(field, FieldInfo)}


def bare_type(annotation: Any) -> Any:
    """An annotation without its metadata and, of a single config, without "or None"."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    configs = [member for member in get_args(annotation) if hasattr(member, "model_fields")]
    return configs[0] if len(configs) == 1 else annotation


def type_name(annotation: Any) -> str:
    """The words for a type: `whole number`, `"adamw" or "muon"`, `list of text`, `SftConfig`."""
    annotation = bare_type(annotation)
    origin, members = get_origin(annotation), get_args(annotation)
    if kinds := kinds_of(annotation):
        return f"one of the kinds {', '.join(kinds)}"
    if origin is Literal:
        return " or ".join(f'"{member}"' if isinstance(member, str) else str(member) for member in members)
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(member) for member in members)
    if origin is tuple:
        items = members[:1] if members[-1:] == (...,) else members
        return f"list of {', '.join(type_name(item) for item in items)}"
    if origin is dict:
        return f"mapping of {type_name(members[0])} to {type_name(members[1])}"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))
