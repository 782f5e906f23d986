"""Notices that this process will soon be taken away, and how a training loop heeds them.

Whoever starts a loop knows how its place gives notice (a signal, Ray's drain of a node) and says so with `heeding`. The
loop asks after every step, saves once beside its regular checkpoints and hands the notice back, which decides whether
training goes on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Notice(Protocol):
    """One way in which a place gives notice."""

    def pending(self) -> bool:
        """Whether a notice waits to be heeded; asked once per step, and answered alike on every worker."""
        ...

    def heeded(self) -> None:
        """Called when the checkpoint is on disk; raises to end the loop."""
        ...


_given: list[Notice] = []
_loops = 0


@contextmanager
def heeding(notice: Notice) -> Iterator[None]:
    """Loops that start within heed `notice`."""
    _given.append(notice)
    try:
        yield
    finally:
        _given.remove(notice)


@contextmanager
def loop_running() -> Iterator[None]:
    """Marks the time in which a loop asks for notices."""
    global _loops
    _loops += 1
    try:
        yield
    finally:
        _loops -= 1


def is_loop_running() -> bool:
    """Whether a loop of this process will ask for notices after its step."""
    return _loops > 0


def pending() -> list[Notice]:
    """The notices that wait to be heeded."""
    return [notice for notice in _given if notice.pending()]
