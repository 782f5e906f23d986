"""The border between a program nobody has read and the tests that judge it: plain data and nothing else.

A value crosses as JSON with the builtin types it needs by name, and becomes exactly that type again, so neither a
class with an `__eq__` of its own nor a subclass of `str` reaches a test. What is not plain data stays where it is and
crosses as a reference. `pickle` and `marshal` are not taken: both can build more than data from hostile bytes.
"""

import json
from collections import deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import IO, Any

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
_TEXTS: dict[str, tuple[type, Callable[[Any], str], Callable[[str], Any]]] = {
    "bytes": (bytes, lambda value: bytes(value).hex(), bytes.fromhex),
    "bytearray": (bytearray, lambda value: bytes(value).hex(), bytearray.fromhex),
    "complex": (complex, lambda value: repr(complex(value)), complex),
    "Decimal": (Decimal, str, Decimal),
    "Fraction": (Fraction, str, Fraction),
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "time": (time, time.isoformat, time.fromisoformat),
}


class BorderError(Exception):
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
    if isinstance(value, dict):
        return ["dict", *([encode(key, keep), encode(item, keep)] for key, item in value.items())]
    if isinstance(value, range):
        return ["range", value.start, value.stop, value.step]
    if isinstance(value, timedelta):
        return ["timedelta", value.days, value.seconds, value.microseconds]
    for name, (kind, write, _) in _TEXTS.items():
        if isinstance(value, kind):
            return [name, write(value)]
    return keep(value)


def decode(tree: Any, find: Callable[[list[Any]], Any]) -> Any:
    """The value of a tree, of exactly the builtin type that it names; `find` gives what a reference stands for.

    Raises:
        BorderError: no value is written so.
    """
    if not isinstance(tree, list):
        if isinstance(tree, dict):
            raise BorderError("a JSON object is not a value")
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
        if name == "timedelta":
            return timedelta(*rest)
        if name in _TEXTS:
            return _TEXTS[name][2](rest[0])
        return find(tree)
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise BorderError(f"not a value: {error}") from error


def send(stream: IO[bytes], message: Any) -> None:
    """Write one message, a line of JSON.

    Raises:
        BorderError: nobody reads any more.
    """
    try:
        stream.write(json.dumps(message).encode("ascii") + b"\n")
        stream.flush()
    except OSError as error:
        raise BorderError(str(error)) from error


def receive(stream: IO[bytes]) -> Any:
    """Read one message.

    Raises:
        BorderError: the other side is gone, or what it wrote is no message of at most `LONGEST_MESSAGE` bytes.
    """
    line = stream.readline(LONGEST_MESSAGE + 1)
    if not line.endswith(b"\n"):
        raise BorderError("the program is gone" if len(line) <= LONGEST_MESSAGE else "the message is too long")
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BorderError(f"not a message: {error}") from error
