"""Document stages in parallel: turn parquet parts into parquet parts, or do any named pieces of work.

By Ray Data where the run has a Ray, as on a cluster; in forks of the stage's own process where it has none: a laptop's
pieces take less time than Ray takes to start, and each of its workers to import what the stage has imported already.

The unit of work is one part file: `map_parts` gives every part to a task that reads it, calls a plain function
and writes that function's tables under the same part name. Outputs therefore do not depend on the number of
workers or on the order in which they finish, no document passes through the driver, and a killed stage goes on
with the parts it lacks. A shuffle by content (dedup) is `map_pieces` over ranges of keys: files carry what is shuffled,
so that it is resumed and bounded in memory as parts are.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from joblib import cpu_count
from ray.exceptions import RayError

from qwenops.contracts.document import read_part, write_part
from qwenops.errors import FAMILIES, PlatformError, QwenOpsError, StageError
from qwenops.platform.context import RunContext
from qwenops.platform.forks import map_in_forks
from qwenops.platform.observe.progress import Progress
from qwenops.platform.ray.start import RETRIES, connect

_ERROR_PARTS = ("expected", "found", "action")


@dataclass(frozen=True)
class PartResult:
    """What a function makes of one part.

    Attributes:
        tables: Output folder name ("documents", "dropped") to its table.
        summary: Plain data for the driver (a funnel, say); must survive JSON.
    """

    tables: Mapping[str, pa.Table]
    summary: dict[str, Any] = field(default_factory=dict[str, Any])


def map_parts(
    context: RunContext,
    parts: Sequence[Path],
    function: Callable[[pa.Table], PartResult],
    out: Path,
    *,
    progress: Progress | None = None,
    columns: list[str] | None = None,
) -> list[dict[str, Any]]:
    """Call `function` on every part in parallel and write its tables to `out/<table name>/<part name>`.

    A part whose summary lies in `out` already is not done again, so an `out` in a stage's scratch folder resumes.

    Args:
        context: Where this runs.
        parts: Parquet files, such as `contracts.document.part_paths` lists.
        function: Picklable: a module's function, or a `functools.partial` of one. It sees one part at a time.
        out: Folder for the tables; `out/.summaries/` holds one JSON file per part.
        progress: Advanced by one for every finished part.
        columns: Columns to read; None reads all.

    Returns:
        The summaries, in the order of `parts`.

    Raises:
        QwenOpsError: as `function` raised it, with the name of the part; a StageError for any other exception.
    """
    work = partial(_do_part, folder=parts[0].parent, function=function, out=out, columns=columns)
    return map_pieces(context, [path.stem for path in parts], work, out, progress=progress)


def map_pieces(
    context: RunContext,
    names: Sequence[str],
    function: Callable[[str], dict[str, Any]],
    out: Path,
    *,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Call `function` on every name in parallel; it writes what it makes itself and returns a summary.

    A piece whose summary lies in `out` already is not done again. A piece whose worker dies is done again by another
    one, so `function` must be able to write over what a dead one left.

    Args:
        context: Where this runs.
        names: Names of the pieces, all different; they become file names.
        function: Picklable: a module's function, or a `functools.partial` of one.
        out: Folder; `out/.summaries/` holds one JSON file per piece.
        progress: Advanced by one for every finished piece.

    Returns:
        The summaries, in the order of `names`.

    Raises:
        QwenOpsError: as `function` raised it, with the name of the piece; a PlatformError for a read or write that
            the machine refused, a StageError for any other exception.
    """
    summaries = out / ".summaries"
    summaries.mkdir(parents=True, exist_ok=True)
    waiting = [name for name in names if not (summaries / f"{name}.json").exists()]
    if progress is not None and len(waiting) < len(names):
        progress.advance(len(names) - len(waiting), "resumed")
    if waiting:
        work = partial(_do_piece, function=function, summaries=summaries)
        for error in _on_ray(context, work, waiting) if context.ray_address else _here(work, waiting):
            if error:
                raise _rebuild(json.loads(error))
            if progress is not None:
                progress.advance(1)
    return [json.loads((summaries / f"{name}.json").read_text(encoding="utf-8")) for name in names]


def publish(work: Path, name: str, out: Path) -> None:
    """Copy the parts `work/<name>` to `out/<name>`; a copy, because `work` must stay whole for a resumed stage."""
    shutil.copytree(work / name, out / name)


def _do_part(
    name: str, folder: Path, function: Callable[[pa.Table], PartResult], out: Path, columns: list[str] | None
) -> dict[str, Any]:
    path = folder / f"{name}.parquet"
    result = function(read_part(path, columns))
    for kind, table in result.tables.items():
        write_part(table, out / kind / path.name)
    return result.summary


def _do_piece(name: str, function: Callable[[str], dict[str, Any]], summaries: Path) -> str:
    """Do one piece and return its error as text, empty without one."""
    try:
        summary = function(name)
        # The summary comes last and by rename: a piece with a summary is complete.
        temporary = summaries / f"{name}.tmp"
        temporary.write_text(json.dumps(summary), encoding="utf-8")
        temporary.replace(summaries / f"{name}.json")
    except QwenOpsError as error:
        return _describe(name, error)
    except OSError as error:
        refused = PlatformError(
            "a worker could not read or write",
            expected="readable inputs and a writable folder with free space",
            found=error,
            action="free some space, then run again; finished parts are kept",
        )
        return _describe(name, refused)
    return ""


def _describe(name: str, error: QwenOpsError) -> str:
    """The error as text: Ray keeps only the text of an exception, and the family decides the exit status."""
    facts = {"family": type(error).__name__, "message": f"{name}: {error.message}"}
    return json.dumps(facts | {part: getattr(error, part) for part in _ERROR_PARTS})


def _here(work: Callable[[str], str], names: Sequence[str]) -> Iterator[str]:
    try:
        for _, error in map_in_forks(work, names, cpu_count()):
            yield error
    except QwenOpsError:
        raise
    except Exception as error:
        raise _failed(f"{type(error).__name__}: {error}") from error


def _on_ray(context: RunContext, work: Callable[[str], str], names: Sequence[str]) -> Iterator[str]:
    # Takes a second and more to import, which a run without a Ray need not pay.
    import ray.data

    connect(context)
    settings = ray.data.DataContext.get_current()
    settings.enable_progress_bars = False
    settings.print_on_execution_start = False
    settings.execution_options.preserve_order = True
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    items = ray.data.from_items([{"name": name} for name in names], override_num_blocks=len(names))
    try:
        for row in items.map(partial(_do_row, work=work), max_retries=RETRIES).iter_rows():
            yield row["error"]
    except RayError as error:
        # The cause is the last line of the first traceback in Ray's text.
        first = str(error).split("\nThe above exception", maxsplit=1)[0].strip()
        raise _failed(first.rpartition("\n")[2]) from error


def _do_row(row: dict[str, Any], work: Callable[[str], str]) -> dict[str, Any]:
    return {"error": work(row["name"])}


def _failed(found: str) -> StageError:
    return StageError(
        "a piece of the stage failed",
        expected="every part to be processed",
        found=found,
        action="run again; finished parts are kept. With --debug the traceback is shown",
    )


def _rebuild(facts: dict[str, str]) -> QwenOpsError:
    family = FAMILIES[facts.pop("family")]
    return family(facts.pop("message"), **facts)
