"""The events of a run: one file per node, from which the run record and the console are made."""

import json
import os
import traceback
from pathlib import Path
from typing import Literal, TypedDict, Unpack

from qwenops.errors import FAMILIES, QwenOpsError
from qwenops.platform.secrets import redact


class Failure(TypedDict):
    """An error as plain data: the name of its family, its message, its traceback."""

    family: str
    message: str
    traceback: str


class Facts(TypedDict, total=False):
    """What a run records of a node.

    `started` and `finished` are seconds since the epoch, and `run_started` and `run_finished` those of its `run`.
    `artifact` is the address of what it published, `job` the RayJob whose driver wrote this.
    """

    node: str
    status: Literal["running", "succeeded", "skipped", "failed"]
    area: str
    job: str
    started: float
    finished: float
    run_started: float
    run_finished: float
    artifact: str
    error: Failure


class Events:
    """One JSON file per node of a run, replaced atomically: what the run record and the console are made from."""

    def __init__(self, folder: Path, node: str) -> None:
        self._path = folder / f"{node}.json"
        self._facts: Facts = {"node": node}

    def read(self) -> Facts:
        """What this run has recorded of the node, by whichever process; empty before it began."""
        try:
            return json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}

    def write(self, **facts: Unpack[Facts]) -> None:
        """Add `facts` and publish the file."""
        self._facts |= facts
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # A step and what was started ahead of it may write at once.
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(self._facts), encoding="utf-8")
        temporary.replace(self._path)


def describe_error(error: BaseException) -> Failure:
    """An error as plain data."""
    family = type(error).__name__ if isinstance(error, QwenOpsError) else "StageError"
    return {
        "family": family,
        "message": redact(str(error)) or type(error).__name__,
        "traceback": redact("".join(traceback.format_exception(error))),
    }


def described_error(failure: Failure) -> QwenOpsError:
    """The error that `describe_error` described, in another process."""
    return FAMILIES[failure["family"]](failure["message"])
