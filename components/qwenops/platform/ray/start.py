"""A Ray node on this machine, started again where the machine was too busy for it."""

import contextlib
from collections.abc import Callable

import psutil

_STARTS = 3


def patiently(start: Callable[[], object]) -> None:
    """Call `start` again where the node took longer than the half minute that Ray gives it, as on a busy machine.

    Args:
        start: Starts Ray in this process. What it leaves below this process when it fails is killed.

    Raises:
        Exception: as `start` raised it, for another reason or for the third time.
    """
    for left in reversed(range(_STARTS)):
        before = set(psutil.Process().children(recursive=True))
        try:
            start()
        except Exception as error:
            if not left or "timed out" not in str(error):
                raise
            for process in set(psutil.Process().children(recursive=True)) - before:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        else:
            return
