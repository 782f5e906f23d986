"""Canonical text of a config: encode, strictly decode, fingerprint.

JSON text travels through the DAG instead of dictionaries because KFP turns integers in dictionaries into
floats; sorted keys and no spaces make equal values equal text, which is what the caches compare.
"""

import difflib
import hashlib
import json
from typing import Any, TypeVar

from pydantic import ValidationError

from qwenops.errors import RecipeError
from qwenops.recipe.config import Config

C = TypeVar("C", bound=Config)


def canonical(value: Any) -> str:
    """Return `value` (a config or plain JSON data) as canonical JSON text: sorted keys, no spaces, UTF-8 kept."""
    plain = value.model_dump(mode="json") if isinstance(value, Config) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of the canonical text, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def decode(config_class: type[C], text: str, *, where: str = "") -> C:
    """Decode canonical text into `config_class`, refusing what it does not know.

    Args:
        config_class: The class to decode into.
        text: JSON text.
        where: Dotted path put in front of the field in an error message.

    Raises:
        RecipeError: unknown key, missing key, wrong type or value out of range; names the dotted path,
            the value found and the nearest valid key.
    """
    try:
        return config_class.model_validate_json(text)
    except ValidationError as error:
        raise _explain(config_class, error, where) from None


def _explain(config_class: type[Config], error: ValidationError, where: str) -> RecipeError:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    dotted = ".".join(([where] if where else []) + path)
    if first["type"] == "extra_forbidden":
        known = _known_keys(config_class, path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1)
        return RecipeError(
            f"unknown field {dotted}",
            expected=f"one of {', '.join(known)}",
            found=path[-1],
            action=f"did you mean {near[0]}?" if near else "remove the field",
        )
    return RecipeError(
        f"bad value at {dotted or 'the recipe'}",
        expected=first["msg"],
        found=repr(first.get("input")),
        action="change the value in the recipe, or the --set that gave it",
    )


def _known_keys(config_class: type[Config], path: list[str]) -> list[str]:
    owner: Any = config_class
    for name in path:
        fields = getattr(owner, "model_fields", {})
        if name not in fields:
            break
        annotation = fields[name].annotation
        owner = annotation if isinstance(annotation, type) else owner
    return sorted(getattr(owner, "model_fields", {}))
