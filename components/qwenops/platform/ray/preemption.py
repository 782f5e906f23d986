"""How a place gives notice to a training loop: SIGTERM to this process, or Ray's drain of a worker's node."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager

import ray.train

from qwenops.errors import PlatformError
from qwenops.platform.termination import Terminated
from qwenops.training.preemption import is_loop_running


class SignalNotice:
    """SIGTERM to the process that trains: the loop saves, then ends with an error that a retry mends."""

    def __init__(self) -> None:
        self._given = False

    @contextmanager
    def installed(self) -> Generator[None]:
        """Take SIGTERM over for a while; only the main thread can, elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGTERM, self._give)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)

    def pending(self) -> bool:
        """Whether the signal came."""
        return self._given

    def acknowledge(self) -> None:
        """End the loop.

        Raises:
            PlatformError: always.
        """
        raise PlatformError(
            "this process was asked to end while it trained",
            expected="time to finish",
            found="SIGTERM",
            action="run again, it continues from the checkpoint that was saved just now",
        )

    def _give(self, *_: object) -> None:
        if not is_loop_running():
            raise Terminated
        self._given = True


class DrainNotice:
    """Ray drains a worker's node: the loop saves once and goes on until Ray Train moves the workers."""

    def __init__(self) -> None:
        self._given = False

    def pending(self) -> bool:
        """Whether Ray has just said so; a barrier of all workers."""
        if ray.train.get_preemption_info() is None or self._given:
            return False
        self._given = True
        return True

    def acknowledge(self) -> None:
        """Go on."""
