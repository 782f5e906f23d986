"""The protocol between a program nobody has read and the tests that judge it: plain data and nothing else.

A value crosses as JSON with the builtin types it needs by name, and becomes exactly that type again, so neither a
class with an `__eq__` of its own nor a subclass of `str` reaches a test. What is not plain data stays where it is and
crosses as a reference. `pickle` and `marshal` are not taken: both can build more than data from hostile bytes.
"""

from __future__ import annotations

import json
from collections import deque

TYPE_CHECKING = False  # typing itself costs an interpreter's start, and so do the modules of rare values
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Any, TypeGuard

# House choice: larger than any result of the code benchmarks, small enough to be read at once.
LONGEST_MESSAGE = 16 * 1024 * 1024
_JSON_INTEGER = 2**63
_GROUPS: dict[str, type] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
}
_RARE_MODULES = {"decimal", "fractions", "datetime"}
_RARE_NAMES = {"Decimal", "Fraction", "datetime", "date", "time"}
_BYTES = {"bytes": bytes, "bytearray": bytearray}


class ProtocolError(Exception):
    """What arrived is not a message of this protocol, or the other side is gone."""


def encode(value: Any, keep: Callable[[Any], list[Any]]) -> Any:
    """`value` as a tree that JSON can hold; `keep` gives the reference of what is not plain data."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        plain = int(value)
        return plain if -_JSON_INTEGER <= plain < _JSON_INTEGER else ["int", hex(plain)]
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    for name, group in _GROUPS.items():
        if isinstance(value, group):
            return [name, *(encode(item, keep) for item in value)]
    if _is_dict(value):
        return ["dict", *([encode(key, keep), encode(item, keep)] for key, item in value.items())]
    if isinstance(value, range):
        return ["range", value.start, value.stop, value.step]
    if isinstance(value, complex):
        return ["complex", repr(complex(value))]
    for name, kind in _BYTES.items():
        if isinstance(value, kind):
            return [name, bytes(value).hex()]
    if _RARE_MODULES & {base.__module__ for base in type(value).__mro__}:
        return _encode_rare(value, keep)
    return keep(value)


def decode(tree: Any, find: Callable[[list[Any]], Any]) -> Any:
    """The value of a tree, of exactly the builtin type that it names; `find` gives what a reference stands for.

    Raises:
        ProtocolError: no value is written so.
    """
    if not _is_list(tree):
        if isinstance(tree, dict):
            raise ProtocolError("a JSON object is not a value")
        return tree
    try:
        name, *rest = tree
        if name in _GROUPS:
            return _GROUPS[name](decode(item, find) for item in rest)
        if name == "dict":
            return {decode(key, find): decode(item, find) for key, item in rest}
        if name == "int":
            return int(rest[0], 16)
        if name == "range":
            return range(*rest)
        if name == "complex":
            return complex(rest[0])
        if name in _BYTES:
            return _BYTES[name].fromhex(rest[0])
        if name == "timedelta" or name in _RARE_NAMES:
            return _decode_rare(name, rest)
        return find(tree)
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise ProtocolError(f"not a value: {error}") from error


def send(stream: IO[bytes], message: Any) -> None:
    """Write one message, a line of JSON.

    Raises:
        ProtocolError: nobody reads any more.
    """
    try:
        stream.write(json.dumps(message).encode("ascii") + b"\n")
        stream.flush()
    except OSError as error:
        raise ProtocolError(str(error)) from error


def receive(stream: IO[bytes]) -> Any:
    """Read one message.

    Raises:
        ProtocolError: the other side is gone, or what it wrote is no message of at most `LONGEST_MESSAGE` bytes.
    """
    line = stream.readline(LONGEST_MESSAGE + 1)
    if not line.endswith(b"\n"):
        raise ProtocolError("the program is gone" if len(line) <= LONGEST_MESSAGE else "the message is too long")
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not a message: {error}") from error


def _is_dict(value: Any) -> TypeGuard[dict[Any, Any]]:
    return isinstance(value, dict)


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _encode_rare(value: Any, keep: Callable[[Any], list[Any]]) -> Any:
    import datetime
    import decimal
    import fractions

    if isinstance(value, datetime.timedelta):
        return ["timedelta", value.days, value.seconds, value.microseconds]
    if isinstance(value, decimal.Decimal | fractions.Fraction):
        return ["Decimal" if isinstance(value, decimal.Decimal) else "Fraction", str(value)]
    if isinstance(value, datetime.datetime):
        return ["datetime", datetime.datetime.isoformat(value)]
    if isinstance(value, datetime.date):
        return ["date", datetime.date.isoformat(value)]
    if isinstance(value, datetime.time):
        return ["time", datetime.time.isoformat(value)]
    return keep(value)


def _decode_rare(name: str, rest: list[Any]) -> Any:
    import datetime
    import decimal
    import fractions

    if name == "timedelta":
        return datetime.timedelta(*rest)
    if name in ("Decimal", "Fraction"):
        return {"Decimal": decimal.Decimal, "Fraction": fractions.Fraction}[name](rest[0])
    return getattr(datetime, name).fromisoformat(rest[0])
