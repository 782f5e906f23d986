"""A server that runs stages in forks of one warm process.

Importing torch, transformers, Ray, MLflow and Great Expectations takes about ten seconds on two cores; a run has
29 nodes, and KFP's local runner starts a fresh interpreter for each. This process imports what the stages of its run
need once, while it has nothing else to do, and forks for every stage, so a stage starts with everything loaded and
still has a process of its own. Without a server (on a cluster, in a test) `execute` runs the stage in its own
process; the results are the same.

Protocol: one connection per stage on a Unix socket; a JSON line in, a JSON line out. A connection that closes
without an answer means that the stage's process died. A request waits while as many stages run as there are slots, and
while its own node runs. A stage that shares the machine is held to the processors of one slot, whether or not another
runs beside it, so that its threads, and with them the last bits of its sums, do not depend on what else runs.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from qwenops.errors import StageError
from qwenops.platform.stage.events import Failure
from qwenops.platform.stage.task import TaskSpec
from qwenops.platform.termination import die_with_parent

_IDLE_SECONDS = 0.2


class Request(TaskSpec):
    """What the server is asked: a task, the name of its node, and whether it is held to the processors of one slot."""

    node: str
    sharing: bool


class Done(TypedDict):
    """The answer of a stage that ran: where what it published lies."""

    path: str


class Failed(TypedDict):
    """The answer of a stage that failed."""

    error: Failure


Answer = Done | Failed
Handle = Callable[[Request], Answer]


def request(address: str, message: Request) -> Answer:
    """Ask the server at `address` to run a stage and wait for its answer.

    Raises:
        StageError: the stage's process died without an answer (killed, or out of memory).
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        connection.sendall(json.dumps(message).encode() + b"\n")
        answer = _read_line(connection)
    if not answer:
        raise StageError(
            "the stage's process died without an answer",
            expected="an answer from the stage",
            found="a closed connection",
            action="look for an out-of-memory kill (dmesg), then run again to continue",
        )
    return json.loads(answer)


def is_up(address: str) -> bool:
    """Whether the server at `address` still takes requests, which it does until the run ends."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(address) == 0


def serve(address: str, handle: Handle, slots: int = 1, modules: Sequence[str] = ()) -> None:
    """Accept requests forever, forking for each; import `modules` while nothing is asked.

    Args:
        address: Path of the Unix socket to listen on.
        handle: Called in the forked process with the request; its result is the answer.
        slots: Stages that run at once.
        modules: Names of modules, the one that is needed first at the front; a stage imports what is missing itself.
    """
    # Ctrl-C reaches every process of a terminal; this one ends when the run that started it says so, without a word.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pending = list(modules)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        pool = _WorkerPool(slots, listener, handle)
        while True:
            ready, _, _ = select.select([listener], [], [], 0 if pending else _IDLE_SECONDS)
            if ready:
                pool.ask(listener.accept()[0])
            elif pending:
                # What cannot be imported here a stage finds missing itself, if it needs it at all.
                with contextlib.suppress(ImportError):
                    importlib.import_module(pending.pop(0))
            pool.look()


@dataclass
class _WorkerPool:
    """The requests that wait, and by process the node and the slot of those that run."""

    slots: int
    listener: socket.socket
    handle: Handle
    waiting: list[tuple[socket.socket, Request]] = field(default_factory=list[tuple[socket.socket, Request]])
    running: dict[int, tuple[str, int]] = field(default_factory=dict[int, tuple[str, int]])

    def ask(self, connection: socket.socket) -> None:
        """Take a request in; one that ends before it has asked is dropped."""
        if line := _read_line(connection):
            self.waiting.append((connection, json.loads(line)))
        else:
            connection.close()

    def look(self) -> None:
        """Forget the processes that have ended, and start what can run now, first come first served."""
        while self.running and (ended := os.waitpid(-1, os.WNOHANG)[0]):
            self.running.pop(ended, None)
        for connection, message in list(self.waiting):
            nodes, used = {node for node, _ in self.running.values()}, {slot for _, slot in self.running.values()}
            free = sorted(set(range(self.slots)) - used)
            if free and message["node"] not in nodes:
                self.waiting.remove((connection, message))
                with connection:
                    child = self._fork(connection, message, free[0])
                self.running[child] = (message["node"], free[0])

    def _fork(self, connection: socket.socket, message: Request, slot: int) -> int:
        sys.stdout.flush()
        if child := os.fork():
            return child
        self.listener.close()
        for other, _ in self.waiting:
            # Open here, it would hide from its client that the process that is to answer it has died.
            other.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        die_with_parent()
        try:
            if message["sharing"]:
                os.sched_setaffinity(0, _processors(slot, self.slots))
            answer = self.handle(message)
            connection.sendall(json.dumps(answer).encode() + b"\n")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # Not sys.exit: the modules of the warm parent registered exit handlers that belong to it alone.
            os._exit(0)


def _processors(slot: int, slots: int) -> list[int]:
    """The processors of one of the equal parts that this process's are shared out in; at least one."""
    mine = sorted(os.sched_getaffinity(0))
    each = max(len(mine) // slots, 1)
    first = slot * each % len(mine)
    return mine[first : first + each]


def _read_line(connection: socket.socket) -> bytes:
    pieces: list[bytes] = []
    while piece := connection.recv(1 << 16):
        pieces.append(piece)
        if piece.endswith(b"\n"):
            break
    return b"".join(pieces)
