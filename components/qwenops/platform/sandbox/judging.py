"""Judge a program by its tests: the program computes in one process, the tests compare in another.

The verdict is made outside the program's process, from values that crossed the boundary as plain data. A program that
prints the expected output, ends with a status, patches the interpreter or returns an object equal to everything has
therefore nothing to forge: the tests' process holds none of its code. Both processes stand behind the same fence.
"""

import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import IO, Any, Literal

from qwenops.errors import PlatformError
from qwenops.platform.sandbox.confinement import SCRATCH_BYTES, Fence, open_fence
from qwenops.platform.sandbox.guest import program_server, referee
from qwenops.platform.sandbox.guest.protocol import ProtocolError, receive, send
from qwenops.recipe.isolation import Isolation

Result = Literal["passed", "failed", "raised", "died", "timeout"]

# House choice: an interpreter starts in a twentieth of a second; a machine this slow is broken.
_START_SECONDS = 60.0
_REFEREE_BYTES = 2 << 30


@dataclass(frozen=True)
class Program:
    """A program and the tests that judge it.

    Attributes:
        code: Source nobody has read; only the standard library can be imported.
        tests: Sources somebody has read; each passes when it ends without an exception.
        names: What the program gives to the tests: the functions and classes they ask for. Every other name of the
            tests is their own, a builtin or of `prelude`.
        prelude: Source that the tests need and the program cannot change, such as the helpers of a task's prompt.
    """

    code: str
    tests: tuple[str, ...]
    names: tuple[str, ...]
    prelude: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the tests say of a program.

    Attributes:
        results: Per test: "passed", "failed" (its own assertion), "raised" (the program), "died" (its process), or
            "timeout".
        seconds: Wall time from the first line of the program.
    """

    results: tuple[Result, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether there are tests and all passed."""
        return bool(self.results) and set(self.results) == {"passed"}


@dataclass(frozen=True)
class Sandbox:
    """Judges programs within limits.

    Attributes:
        fence: Where they run.
        timeout_seconds: Wall time of a program with all its tests; the start of the interpreter does not count.
        memory_mb: Address space of the program.
        workers: Programs judged at a time.
    """

    fence: Fence
    timeout_seconds: float = 5.0
    memory_mb: int = 512
    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))

    @classmethod
    def open(cls, isolation: Isolation, timeout_seconds: float) -> "Sandbox":
        """A sandbox behind the fence a recipe asks for.

        Raises:
            PlatformError: programs cannot be confined on this machine.
        """
        return cls(open_fence(isolation), timeout_seconds)

    def judge_all(self, programs: Sequence[Program]) -> list[Verdict]:
        """Judge programs, several at a time, in their order."""
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(self.judge, programs))

    def judge(self, program: Program) -> Verdict:
        """Judge one program; never raises for its sake.

        Raises:
            PlatformError: the sandbox did not start.
        """
        with ExitStack() as stack:
            limits = (self.memory_mb << 20, max(1, round(self.timeout_seconds + 0.5)), SCRATCH_BYTES)
            program_process = self._start(stack, program_server, limits)
            assert program_process.stdin and program_process.stdout
            pipes = (program_process.stdout.fileno(), program_process.stdin.fileno())
            tests_process = self._start(stack, referee, (_REFEREE_BYTES, limits[1], limits[2], *pipes), pipes)
            program_process.stdin.close()
            program_process.stdout.close()
            assert tests_process.stdin and tests_process.stdout
            if _receive(tests_process.stdout, _START_SECONDS) != "ready":
                raise PlatformError(
                    "the sandbox did not start", expected=f"an interpreter within {_START_SECONDS:.0f} s"
                )
            began = time.monotonic()
            job = {"code": program.code, "tests": program.tests, "names": program.names, "prelude": program.prelude}
            with suppress(ProtocolError):
                send(tests_process.stdin, job)
            results: Any = _receive(tests_process.stdout, self.timeout_seconds)
            seconds = time.monotonic() - began
        if results is None:
            results = ["timeout" if seconds >= self.timeout_seconds else "died"] * len(program.tests)
        return Verdict(tuple(results), seconds)

    def _start(
        self, stack: ExitStack, entry: ModuleType, arguments: Sequence[int], pipes: Sequence[int] = ()
    ) -> subprocess.Popen[bytes]:
        process = self.fence.start(entry, arguments, pipes)
        stack.callback(_end, process)
        return process


def _receive(stream: IO[bytes], timeout_seconds: float) -> Any:
    """One message of a trusted process; None when it did not come in time."""
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    if not poll.poll(timeout_seconds * 1000):
        return None
    try:
        return receive(stream)
    except ProtocolError:
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process with everything it started, and close its pipes."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            with suppress(BrokenPipeError):
                stream.close()
