"""The events of a run: one file per node, from which the run record and the console are made."""

import json
import os
import traceback
from pathlib import Path
from typing import Any

from qwenops.errors import QwenOpsError
from qwenops.platform.secrets import redact


class Events:
    """One JSON file per node of a run, replaced atomically: what the run record and the console are made from."""

    def __init__(self, folder: Path, node: str) -> None:
        self._path = folder / f"{node}.json"
        self._facts: dict[str, Any] = {"node": node}

    def read(self) -> dict[str, Any]:
        """What this run has recorded of the node, by whichever process; empty before it began."""
        try:
            return json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}

    def write(self, **facts: Any) -> None:
        """Add `facts` and publish the file."""
        self._facts |= facts
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # A step and what was started ahead of it may write at once.
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(self._facts), encoding="utf-8")
        temporary.replace(self._path)


def describe_error(error: BaseException) -> dict[str, str]:
    """An error as plain data: family, message, traceback."""
    family = type(error).__name__ if isinstance(error, QwenOpsError) else "StageError"
    return {
        "family": family,
        "message": redact(str(error)) or type(error).__name__,
        "traceback": redact("".join(traceback.format_exception(error))),
    }
