"""Canonical text of a config: encode, strictly decode, fingerprint.

JSON text travels through the DAG instead of dictionaries because KFP turns integers in dictionaries into
floats; sorted keys and no spaces make equal values equal text, which is what the caches compare.
"""

import difflib
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from pydantic import ValidationError

from qwenops.errors import RecipeError
from qwenops.recipe.config import Config
from qwenops.recipe.fields import known_fields

C = TypeVar("C", bound=Config)
Plain: TypeAlias = "bool | int | float | str | Sequence[Plain] | Mapping[str, Plain] | None"
"""Plain data, as JSON holds it."""
_SHOWN = 300


def canonical(value: Any) -> str:
    """Return `value` (a config or plain JSON data) as canonical JSON text: sorted keys, no spaces, UTF-8 kept."""
    plain = value.model_dump(mode="json") if isinstance(value, Config) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of the canonical text, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def read_json(text: str, where: str) -> Any:
    """Parse JSON a person wrote: NaN and infinities, numbers too large to be finite and repeated keys are refused.

    Args:
        text: JSON text.
        where: What the text is, for the message.

    Raises:
        RecipeError: it is no such text.
    """
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise RecipeError(
            f"{where} is not what JSON allows",
            expected="JSON text with finite numbers and each key once",
            found=_short(str(error)),
            action="correct the text there",
        ) from None


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
        return config_class.model_validate_json(text.encode())
    except UnicodeEncodeError as error:
        raise RecipeError(
            f"{where or 'the recipe'} holds half a character",
            expected="text that UTF-8 can hold",
            found=ascii(text[max(error.start - 20, 0) : error.end + 20]),
            action="write the character whole",
        ) from None
    except ValidationError as error:
        raise _explain(config_class, error, where) from None


def _explain(config_class: type[Config], error: ValidationError, where: str) -> RecipeError:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    dotted = ".".join(([where] if where else []) + path)
    if first["type"] == "extra_forbidden":
        known = known_fields(config_class, first["loc"][:-1])
        near = difflib.get_close_matches(path[-1], known, n=1)
        return RecipeError(
            f"unknown field {dotted}",
            expected=f"one of {', '.join(known)}",
            found=path[-1],
            action=f"did you mean {near[0]}?" if near else "remove the field",
        )
    return RecipeError(
        f"bad value at {dotted or 'the recipe'}",
        expected=first["msg"].removeprefix("Value error, "),
        # A check across fields says what it found; their whole owner would bury it.
        found="" if first["type"] == "value_error" else _short(repr(first.get("input"))),
        action="change the value in the recipe, or the --set that gave it",
    )


def _short(text: str) -> str:
    """What is shown of a value that may be a whole recipe."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text}, which is no finite number")
    return number


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {max(names, key=names.count)!r} more than once")
    return plain
