"""Notices that this process will soon be taken away, and how a training loop answers them.

Whoever starts a loop knows how its place gives notice (a signal, Ray's drain of a node) and says so with
`watching_notice`. The loop asks after every step, saves once beside its regular checkpoints and hands the notice back,
which decides whether training goes on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class PreemptionNotice(Protocol):
    """One way in which a place gives notice."""

    def pending(self) -> bool:
        """Whether a notice waits to be acknowledged; asked once per step, and answered alike on every worker."""
        ...

    def acknowledge(self) -> None:
        """Called when the checkpoint is on disk; raises to end the loop."""
        ...


_given: list[PreemptionNotice] = []
_loops = 0


@contextmanager
def watching_notice(notice: PreemptionNotice) -> Iterator[None]:
    """Loops that start within watch for `notice`."""
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


def pending_notices() -> list[PreemptionNotice]:
    """The notices that wait to be acknowledged."""
    return [notice for notice in _given if notice.pending()]
