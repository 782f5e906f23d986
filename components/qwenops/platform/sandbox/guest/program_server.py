"""The process of the program: it runs the source, answers calls, and knows no test and no expected value.

Nothing it says is believed beyond "this is what the program returned". The limits are set before the first line of the
program; where the sandbox holds the process, it cannot lift them.
"""

from __future__ import annotations

import os
import resource
import sys
from types import ModuleType

from qwenops.platform.sandbox.guest.protocol import ProtocolError, decode, encode, receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MODULE = "solution"
_OPEN_FILES = 64


class ProgramServer:
    """The program's module, and the objects that stayed here because they are not plain data."""

    def __init__(self) -> None:
        self._module = ModuleType(MODULE)
        self._kept: list[Any] = []
        sys.modules[MODULE] = self._module

    def answer(self, request: Any) -> Any:
        """The reply to one request: ["value", tree, changed arguments] or ["raised", class names, text]."""
        try:
            operation, target, *trees = request
            arguments = [decode(tree, self._find) for tree in trees]
            result = self._do(operation, target, arguments)
            after = [self._show(argument) for argument in arguments]
            changed = [None if now == tree else now for now, tree in zip(after, trees, strict=True)]
            return ["value", self._show(result), changed]
        except BaseException as error:  # noqa: BLE001 - whatever a program raises is the answer
            names = [kind.__name__ for kind in type(error).__mro__]
            return ["raised", names, str(error)[:1000]]

    def _do(self, operation: str, target: Any, arguments: list[Any]) -> Any:
        if operation == "load":
            exec(compile(target, f"{MODULE}.py", "exec"), self._module.__dict__)
            return None
        if operation == "name":
            return getattr(self._module, target)
        on = decode(target, self._find)
        if operation == "call":
            words = arguments.pop()
            result = on(*arguments, **words)
            arguments.append(words)
            return result
        if operation == "attribute":
            return getattr(on, arguments[0])
        if operation == "item":
            return on[arguments[0]]
        return {"iterate": iter, "next": next, "length": len, "truth": bool, "text": str}[operation](on)

    def _show(self, value: Any) -> Any:
        try:
            return encode(value, self._keep)
        except RecursionError:
            return self._keep(value)

    def _keep(self, value: Any) -> list[Any]:
        for place, kept in enumerate(self._kept):
            if kept is value:
                return ["kept", place]
        self._kept.append(value)
        return ["kept", len(self._kept) - 1]

    def _find(self, reference: list[Any]) -> Any:
        _, place = reference
        return self._kept[place]


def limit(memory_bytes: int, cpu_seconds: int, file_bytes: int) -> None:
    """Limit address space, processor time, files and their size of this process, for good."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def quiet(*descriptors: int) -> None:
    """Point `descriptors` to nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def main() -> None:
    """Serve requests from standard input to standard output until nobody asks any more."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    quiet(0, 1, 2)
    limit(*map(int, sys.argv[1:4]))
    del sys.argv[1:], sys.path[0]
    sys.set_int_max_str_digits(0)
    stand = ProgramServer()
    send(replies, "ready")
    while True:
        try:
            request = receive(requests)
        except ProtocolError:
            return
        reply = stand.answer(request)
        try:
            send(replies, reply)
        except (TypeError, ValueError, RecursionError, MemoryError) as error:
            send(replies, ["raised", [type(error).__name__, "Exception"], "the result cannot be written"])
