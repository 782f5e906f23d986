"""Logging is configured here and nowhere else: one JSON object a line, for machines that read a run's logs.

The lines go where the context says: into `<logs>/<node>.jsonl`, beside what the console shows (a laptop), or to
standard error (a pod, whose log the cluster collects) in place of the plain lines, those of Kubeflow's executor too.
Warnings of libraries and of Python, the stage's own events and tracebacks all pass here, and through `secrets.redact`.
"""

import contextlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TextIO

from qwenops.contracts.json_text import replace_not_finite
from qwenops.platform.context import RunContext
from qwenops.platform.secrets import redact, redact_all

STANDARD_ERROR = "stderr"
_EVENTS = logging.getLogger("qwenops")
_WARNINGS = logging.getLogger("py.warnings")


@dataclass
class Place:
    """What every line says of where it comes from; `step` follows the stage's curves."""

    run: str
    stage: str
    step: int | None = None


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object.

    Its keys are time, level, run, stage, step, rank and message, then what there is of `logger`, `fields` (the
    `fields` of `extra`) and `error` (a traceback).
    """

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._place = place

    def format(self, record: logging.LogRecord) -> str:
        """One line without a line break inside; secrets are masked before the text is escaped."""
        facts: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "run": self._place.run,
            "stage": self._place.stage,
            "step": self._place.step,
            "rank": rank(),
            "message": redact(record.getMessage()),
        }
        if record.name != _EVENTS.name:
            facts["logger"] = record.name
        if fields := record.__dict__.get("fields"):
            facts["fields"] = replace_not_finite(redact_all(fields))
        if record.exc_info:
            facts["error"] = redact(self.formatException(record.exc_info))
        return json.dumps(facts, ensure_ascii=False, default=lambda value: redact(str(value)))


def rank() -> int:
    """This process's place among the workers of a training job; 0 outside one."""
    return int(os.environ.get("RANK") or 0)


def in_pod(context: RunContext) -> bool:
    """Whether JSON lines take the place of the plain lines of the console."""
    return context.logs == STANDARD_ERROR


@contextlib.contextmanager
def logging_to(context: RunContext, node: str) -> Generator[None]:
    """Send what this process logs while the block runs to where `context.logs` says; nowhere when it is empty.

    The place of the lines is the process's, so one block at a time.
    """
    if not context.logs:
        yield
        return
    root, place = logging.getLogger(), Place(context.run_name, node)
    handlers, before = [_handler(context, node, place)], root.handlers[:]
    if not in_pod(context):
        # A handler on the root silences Python's handler of last resort, which the console keeps.
        handlers = [*before, *handlers, _LastResort(logging.WARNING)]
    level, show = _EVENTS.level, warnings.showwarning
    root.handlers[:] = handlers
    _EVENTS.setLevel(logging.INFO)
    warnings.showwarning = _show_and_log(None if in_pod(context) else show)
    _PLACES.append(place)
    try:
        yield
    finally:
        _PLACES.pop()
        warnings.showwarning = show
        _EVENTS.setLevel(level)
        root.handlers[:] = before
        for handler in handlers:
            if handler not in before:
                handler.close()


def event(message: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: Any) -> None:
    """Log one event of the running stage, with plain data as `fields`; does nothing where no log is kept."""
    if _PLACES:
        _EVENTS.log(level, message, exc_info=error, extra={"fields": fields})


def at_step(step: int) -> None:
    """Say which step the stage is at, for the lines to come."""
    if _PLACES:
        _PLACES[-1].step = step


_PLACES: list[Place] = []


def _handler(context: RunContext, node: str, place: Place) -> logging.Handler:
    if in_pod(context):
        handler: logging.Handler = logging.StreamHandler(sys.stderr)
    else:
        folder = Path(context.logs)
        folder.mkdir(parents=True, exist_ok=True)
        # Opened for appending: workers of one stage share the file, a line at a time.
        handler = logging.FileHandler(folder / f"{node}.jsonl", encoding="utf-8", delay=True)
    handler.setFormatter(JsonLines(place))
    handler.addFilter(_is_worth_a_line)
    return handler


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """What a library has to say below a warning is none: Kubeflow's executor lets hundreds of such lines through."""
    return record.levelno >= logging.WARNING or record.name.split(".")[0] == _EVENTS.name


class _LastResort(logging.Handler):
    """What Python does for a logger that nobody gave a handler: print warnings to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = logging.getLogger(record.name)
        while logger.parent is not None:
            if logger.handlers:
                return
            logger = logger.parent
        # Events of the stage were never on the console as log lines, and Python shows its warnings itself.
        shown_elsewhere = record.name.split(".")[0] == _EVENTS.name or record.name == _WARNINGS.name
        if logging.lastResort is not None and not shown_elsewhere:
            logging.lastResort.handle(record)


class _ShowWarning(Protocol):
    """What `warnings.showwarning` is."""

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None: ...


def _show_and_log(show: _ShowWarning | None) -> _ShowWarning:
    def log(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        fields = {"category": category.__name__, "file": filename, "line": lineno}
        _WARNINGS.warning("%s", message, extra={"fields": fields})
        if show is not None:
            show(message, category, filename, lineno, file, line)

    return log
