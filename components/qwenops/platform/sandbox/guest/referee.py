"""The process of the tests: trusted code that asks the program for values and compares them itself.

The names that a task gives to the program stand here as proxies. A proxy can be called, iterated, indexed, measured
and shown, and each answer is plain data of an exact type; it is equal to nothing but itself, has no order and no
arithmetic, so that no comparison is ever left to the program.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import sys

from qwenops.platform.sandbox.guest.program_server import limit, quiet
from qwenops.platform.sandbox.guest.protocol import ProtocolError, decode, encode, receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any, NoReturn, TypeGuard


class Gone(BaseException):
    """The program's process ended or left the protocol; a test that catches every exception must not survive it."""


class Raised(Exception):
    """Marks an exception that the program raised."""


class Line:
    """Requests to the program's process, one at a time.

    Attributes:
        broken: Whether the process is gone.
    """

    def __init__(self, replies: IO[bytes], requests: IO[bytes]) -> None:
        self._replies, self._requests = replies, requests
        self.broken = False
        self._exchange(None)

    def ask(self, operation: str, target: Any, *arguments: Any) -> Any:
        """What the program answers; a list, set or dict that it changed in place is changed here too.

        Raises:
            Raised: the program raised; the exception is of the builtin class it raised, too.
            Gone: there is no answer.
        """
        trees = [encode(argument, _refer) for argument in arguments]
        reply = self._exchange([operation, target, *trees])
        try:
            kind, *rest = reply
            if kind == "raised":
                error = _exception(*rest)
            else:
                tree, changed = rest
                value = decode(tree, self._proxy)
                for argument, now in zip(arguments, changed, strict=True):
                    if now is not None:
                        _replace(argument, decode(now, self._proxy))
                return value
        except (ProtocolError, TypeError, ValueError, RecursionError):
            self._break()
        raise error

    def _exchange(self, request: Any) -> Any:
        if self.broken:
            raise Gone
        try:
            if request is not None:
                send(self._requests, request)
            return receive(self._replies)
        except ProtocolError:
            self._break()

    def _break(self) -> NoReturn:
        self.broken = True
        raise Gone

    def _proxy(self, reference: list[Any]) -> Proxy:
        kind, place = reference
        if kind != "kept" or type(place) is not int:
            raise ProtocolError("not a reference")
        return Proxy(self, ["kept", place])


class Proxy:
    """Something of the program that is not plain data: a function, a class, an object, an iterator.

    Its own two attributes have names that are never looked up in the program, so that none of the program's is hidden.
    """

    __slots__ = ("__line__", "__reference__")

    def __init__(self, line: Line, reference: list[Any]) -> None:
        self.__line__, self.__reference__ = line, reference

    def __call__(self, *arguments: Any, **words: Any) -> Any:
        """What the program's function or class returns."""
        return self.__line__.ask("call", self.__reference__, *arguments, words)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.__line__.ask("attribute", self.__reference__, name)

    def __getitem__(self, key: Any) -> Any:
        return self.__line__.ask("item", self.__reference__, key)

    def __iter__(self) -> Any:
        return self.__line__.ask("iterate", self.__reference__)

    def __next__(self) -> Any:
        return self.__line__.ask("next", self.__reference__)

    def __len__(self) -> int:
        return self.__line__.ask("length", self.__reference__)

    def __bool__(self) -> bool:
        return self.__line__.ask("truth", self.__reference__)

    def __str__(self) -> str:
        return self.__line__.ask("text", self.__reference__)

    def __eq__(self, other: object) -> bool:
        return type(other) is Proxy and self.__reference__ == other.__reference__

    def __hash__(self) -> int:
        return hash(tuple(self.__reference__))


def judge(line: Line, job: dict[str, Any]) -> list[str]:
    """What became of each test: "passed", "failed", "raised" (by the program) or "died"."""
    results = [_attempt(line, lambda: line.ask("load", job["code"]))]
    if results[0] != "passed":
        return results[:1] * len(job["tests"])
    space: dict[str, Any] = {"__name__": "tests"}
    exec(compile(job["prelude"], "prelude.py", "exec"), space)
    for name in job["names"]:
        with contextlib.suppress(Raised):  # a name the program lacks is a NameError of the tests that need it
            space.pop(name, None)
            space[name] = line.ask("name", name)
    scripts = [compile(test, "tests.py", "exec") for test in job["tests"]]
    return [_attempt(line, lambda script=script: exec(script, space)) for script in scripts]


def main() -> None:
    """Judge the job that standard input holds; the program is behind the two descriptors of the command line."""
    verdict = os.fdopen(os.dup(1), "wb")
    quiet(1, 2)
    limit(*map(int, sys.argv[1:4]))
    replies, requests = (os.fdopen(int(sys.argv[4]), "rb"), os.fdopen(int(sys.argv[5]), "wb"))
    sys.set_int_max_str_digits(0)
    line = Line(replies, requests)
    send(verdict, "ready")
    send(verdict, judge(line, receive(sys.stdin.buffer)))


def _attempt(line: Line, action: Any) -> str:
    try:
        action()
        outcome = "passed"
    except Raised:
        outcome = "raised"
    except BaseException:  # noqa: BLE001 - a test fails by any exception
        outcome = "failed"
    return "died" if line.broken else outcome


def _refer(value: Any) -> list[Any]:
    if type(value) is Proxy:
        return value.__reference__
    raise TypeError(f"a test cannot hand a {type(value).__name__} to the program")


def _replace(argument: Any, now: Any) -> None:
    if type(argument) is not type(now):
        raise ProtocolError("an argument changed its type")
    if isinstance(argument, list | bytearray):
        argument[:] = now
    elif _is_updatable(argument):
        argument.clear()
        argument.update(now)


def _is_updatable(value: Any) -> TypeGuard[dict[Any, Any] | set[Any]]:
    return isinstance(value, dict | set)


def _exception(names: Any, text: Any) -> Exception:
    for name in names:
        kind = getattr(builtins, str(name), None)
        if isinstance(kind, type) and issubclass(kind, Exception) and kind is not Exception:
            try:
                return type(kind.__name__, (Raised, kind), {})(str(text))
            except TypeError:
                continue  # a builtin class that needs more than a text, such as UnicodeDecodeError
    return Raised(str(text))
