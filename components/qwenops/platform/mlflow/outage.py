"""What the processes of one run know of a tracking store that stopped answering: it is waited for once, not by each.

Recording is never worth a stage. A record that fails is a warning, says where its figures are kept, and is made up for
at the end of the run if the store answers by then. The knowledge lies among the run's events, since every stage is a
process of its own.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from qwenops.errors import PlatformError
from qwenops.platform.context import RunContext
from qwenops.platform.logs import event
from qwenops.platform.mlflow.server import ANSWER_SECONDS, check_reachable, short_timeouts
from qwenops.platform.secrets import redact

# House choice: a server that is restarted is found again before long, one that hangs costs a twelfth of the time.
_ASK_AGAIN_SECONDS = 60.0
_SILENT, _MISSING = "mlflow.silent", ".unrecorded"


def record_or_warn(
    context: RunContext, node: str, lacks: str, work: Callable[[MlflowClient], None], *, ask: bool = False
) -> bool:
    """Do `work` with a client of the run's store; whatever goes wrong there costs seconds and a warning.

    Args:
        context: Tracking URI, parent run, and the events among which silence is remembered.
        node: Whose record it is.
        lacks: What MLflow then lacks and where its figures are kept.
        work: Speaks to the store.
        ask: Ask a store again that was silent a moment ago, as at the end of a run.

    Returns:
        Whether `work` was done.
    """
    began = time.monotonic()
    try:
        _ask(context, again=ask)
        with short_timeouts():
            work(MlflowClient(context.tracking_uri))
    except (MlflowException, OSError, PlatformError) as error:
        # A server may be well and its database not: then it is the call that waits in vain.
        if time.monotonic() - began >= ANSWER_SECONDS:
            _remember_silence(context)
        found = f"{error.message}: {error.found}" if isinstance(error, PlatformError) else error
        warn(node, f"{lacks}; {found}")
        return False
    return True


def note_missing(context: RunContext, node: str) -> None:
    """Remember that MLflow lacks the record of a stage, and the run that was opened for it."""
    if context.events:
        (Path(context.events) / f"{node}{_MISSING}").write_text(context.stage_run_id, encoding="utf-8")


def take_missing(context: RunContext) -> dict[str, RunContext]:
    """Node to the context to record it with, of every stage that MLflow lacks; they are forgotten with this."""
    found: dict[str, RunContext] = {}
    for path in sorted(Path(context.events).glob(f"*{_MISSING}")) if context.events else ():
        found[path.stem] = replace(context, stage_run_id=path.read_text(encoding="utf-8"))
        path.unlink()
    return found


def warn(node: str, sentence: str) -> None:
    """Say it on the console and in the log."""
    sentence = redact(sentence)
    print(f"[{node}] warning: {sentence}", flush=True)
    event(sentence, level=logging.WARNING)


def _ask(context: RunContext, *, again: bool) -> None:
    """Raises PlatformError where the store does not answer, or did not a moment ago."""
    if not again and (since := _silent_since(context)) is not None:
        raise PlatformError(f"{redact(context.tracking_uri)} did not answer", found=f"asked {since:.0f} s ago")
    try:
        check_reachable(context.tracking_uri, attempts=1)
    except PlatformError:
        _remember_silence(context)
        raise
    if context.events:
        (Path(context.events) / _SILENT).unlink(missing_ok=True)


def _remember_silence(context: RunContext) -> None:
    if context.events:
        text = json.dumps([context.parent_run_id, time.time()])
        (Path(context.events) / _SILENT).write_text(text, encoding="utf-8")


def _silent_since(context: RunContext) -> float | None:
    """Seconds since the store of this very run was asked in vain; None where that is long ago or was not."""
    try:
        run, when = json.loads((Path(context.events) / _SILENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    passed = time.time() - when
    return passed if run == context.parent_run_id and 0 <= passed < _ASK_AGAIN_SECONDS else None
