"""SIGTERM as an exception, and when the parent of a process ends."""

import ctypes
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager

_EXIT_STATUS = 128 + signal.SIGTERM
_PR_SET_PDEATHSIG = 1


class Terminated(SystemExit):
    """This process was asked to end; exit status 143, as a shell would report it."""

    def __init__(self) -> None:
        super().__init__(_EXIT_STATUS)


@contextmanager
def termination_raises() -> Generator[None]:
    """Raise `Terminated` in the main thread on SIGTERM; a second SIGTERM does not interrupt the cleanup."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def die_with_parent() -> None:
    """Have the kernel terminate this process when its parent ends, so that a killed run leaves nothing behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def begin_fork() -> None:
    """Let this fork end by SIGTERM, Ctrl-C and the end of its parent, whatever the parent does at the first two."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    die_with_parent()
