"""How a command ends: with its status, or with one message and the status of the error's family.

| status | what ended it |
|---|---|
| 1 | an error nobody foresaw |
| 2, 3, 4, 5 | recipe, data contract, stage, platform (`qwenops.errors`) |
| 130, 141 | an interrupt, a reader that left |
"""

import contextlib
import os
import select
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn

from qwenops.errors import PlatformError, QwenOpsError
from qwenops_pipelines.extras import missing_extras_error

_INTERRUPTED = 130


@contextlib.contextmanager
def report_errors(*, debug: bool = False) -> Iterator[None]:
    """Turn whatever ends the block into one message on standard error and an exit status; `debug` adds a traceback."""
    # A name that the terminal's encoding lacks must not be what ends a command.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        yield
    except QwenOpsError as error:
        _end(error, debug=debug)
    except ModuleNotFoundError as error:
        _end(missing_extras_error([error.name or ""]) if error.name else _unforeseen(error), debug=debug)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            _end_unread()
        refused = PlatformError(
            "this machine refused a read or a write",
            expected="readable inputs and a writable folder with free space",
            found=error,
            action="free some space or choose another folder, then run again; finished stages are kept",
        )
        _end(refused, debug=debug)
    except KeyboardInterrupt:
        print("\nqwenops: stopped; run the same command again to continue", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the process's outer border: one message whatever happened
        _end(_unforeseen(error), debug=debug)


def _unforeseen(error: Exception) -> QwenOpsError:
    return QwenOpsError(
        "an error that nobody foresaw; finished stages are kept",
        found=f"{type(error).__name__}: {error}",
        action="look for a slip in what was given; else report what `qwenops --debug` and the same arguments print",
    )


def _end(error: QwenOpsError, *, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    print(f"qwenops: {type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(error.exit_status)


def _nobody_reads() -> bool:
    """Whether standard output is a pipe whose reader is gone, as after `| head`; other pipes may break as well."""
    watch = select.poll()
    watch.register(sys.stdout)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in watch.poll(0))


def _end_unread() -> NoReturn:
    """Leave without a word, with the status of a process that such a pipe ended."""
    # What is still buffered would be written, and complained about, at the interpreter's end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)
