"""A server that runs stages in forks of one warm process.

Importing torch, transformers, Ray, MLflow and Great Expectations takes about ten seconds on two cores; a run has
29 nodes, and KFP's local runner starts a fresh interpreter for each. This process imports those modules once,
while it has nothing else to do, and forks for every stage, so a stage starts with everything loaded and
still has a process of its own. Without a server (on a cluster, in a test) `execute` runs the stage in its own
process; the results are the same.

Protocol: one connection per stage on a Unix socket; a JSON line in, a JSON line out. A connection that closes
without an answer means that the stage's process died.
"""

import ctypes
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from qwenops.errors import StageError

# In the order in which the DAG's stages first need them.
PRELOAD: tuple[str, ...] = (
    "pyarrow.parquet",
    "pandas",
    "great_expectations",
    "ray.data",
    "sklearn.linear_model",
    "torch",
    "transformers",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.qwen2_moe.modeling_qwen2_moe",
    "ray.train.torch",
    "mlflow",
)
_PR_SET_PDEATHSIG = 1
_IDLE_SECONDS = 0.2


def request(address: str, message: dict[str, Any]) -> dict[str, Any]:
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


def serve(address: str, handle: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Accept requests forever, forking for each; import `PRELOAD` while nothing is asked.

    Args:
        address: Path of the Unix socket to listen on.
        handle: Called in the forked process with the request; its result is the answer.
    """
    pending = list(PRELOAD)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        while True:
            ready, _, _ = select.select([listener], [], [], 0 if pending else _IDLE_SECONDS)
            if ready:
                connection, _ = listener.accept()
                with connection:
                    _fork(connection, listener, handle)
            elif pending:
                importlib.import_module(pending.pop(0))
            _reap()


def die_with_parent() -> None:
    """Have the kernel terminate this process when its parent ends, so that a killed run leaves nothing behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _fork(
    connection: socket.socket, listener: socket.socket, handle: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    sys.stdout.flush()
    if os.fork():
        return
    listener.close()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()
    try:
        answer = handle(json.loads(_read_line(connection)))
        connection.sendall(json.dumps(answer).encode() + b"\n")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: the modules of the warm parent registered exit handlers that belong to it alone.
        os._exit(0)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _read_line(connection: socket.socket) -> bytes:
    pieces: list[bytes] = []
    while piece := connection.recv(1 << 16):
        pieces.append(piece)
        if piece.endswith(b"\n"):
            break
    return b"".join(pieces)
