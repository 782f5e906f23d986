"""Ray Data for document stages: connect once, turn parquet parts into parquet parts, gather small tables.

The unit of work is one part file: `map_parts` gives every part to a task that reads it, calls a plain function
and writes that function's tables under the same part name. Outputs therefore do not depend on the number of
workers or on the order in which they finish, no document passes through the driver, and a killed stage goes on
with the parts it lacks. A shuffle by content (dedup) uses `read` and Ray Data's own operators, and sorts what it
gathers.
"""

import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
import ray.exceptions

from qwenops.contracts.document import write_part
from qwenops.errors import FAMILIES, QwenOpsError, StageError
from qwenops.platform.context import RunContext
from qwenops.platform.progress import Progress

# A laptop's share of an 8 GB machine: two CPUs, 300 MB of shared memory.
_LOCAL_CPUS = 2
_LOCAL_STORE_BYTES = 300_000_000
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


def connect(context: RunContext) -> None:
    """Connect this process to Ray: the run's (`context.ray_address`), or a small local one. Repeats safely."""
    if not ray.is_initialized():
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        local: dict[str, Any] = {"num_cpus": _LOCAL_CPUS, "object_store_memory": _LOCAL_STORE_BYTES}
        where = {"address": context.ray_address} if context.ray_address else local | {"include_dashboard": False}
        with warnings.catch_warnings():
            # Ray 2.60 warns about its own future defaults; nothing of it is ours to act on.
            warnings.simplefilter("ignore", FutureWarning)
            # A driver on a cluster (address "auto") prints its workers' output too: it is the step's log.
            show = context.ray_address == "auto"
            ray.init(logging_level=logging.ERROR, log_to_driver=show, configure_logging=False, **where)
    settings = ray.data.DataContext.get_current()
    settings.enable_progress_bars = False
    settings.print_on_execution_start = False
    settings.execution_options.preserve_order = True
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def read(context: RunContext, parts: Sequence[Path], columns: list[str] | None = None) -> ray.data.Dataset:
    """A Ray dataset over parquet parts, for operators that shuffle."""
    connect(context)
    return ray.data.read_parquet([str(path) for path in parts], columns=columns)


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
    summaries = out / ".summaries"
    summaries.mkdir(parents=True, exist_ok=True)
    waiting = [str(path) for path in parts if not (summaries / f"{path.stem}.json").exists()]
    if progress is not None and len(waiting) < len(parts):
        progress.advance(len(parts) - len(waiting), "resumed")
    if waiting:
        connect(context)
        work = partial(_do_part, function=function, out=out, columns=columns)
        items = ray.data.from_items([{"path": path} for path in waiting], override_num_blocks=len(waiting))
        for row in _run(items.map(work)):
            if row["error"]:
                raise _rebuild(json.loads(row["error"]))
            if progress is not None:
                progress.advance(1)
    return [json.loads((summaries / f"{path.stem}.json").read_text(encoding="utf-8")) for path in parts]


def publish(work: Path, name: str, out: Path) -> None:
    """Copy the parts `work/<name>` to `out/<name>`; a copy, because `work` must stay whole for a resumed stage."""
    shutil.copytree(work / name, out / name)


def gather(dataset: ray.data.Dataset, key: str | Iterable[str] = "id") -> pa.Table:
    """All rows of a dataset that is small enough for this process, sorted by `key`."""
    tables = [ray.get(ref) for ref in dataset.to_arrow_refs()]
    table = pa.concat_tables(t for t in tables if t.num_rows) if any(t.num_rows for t in tables) else tables[0]
    keys = [key] if isinstance(key, str) else list(key)
    return table.sort_by([(name, "ascending") for name in keys])


def _do_part(
    row: dict[str, Any], function: Callable[[pa.Table], PartResult], out: Path, columns: list[str] | None
) -> dict[str, Any]:
    path = Path(row["path"])
    try:
        result = function(pq.read_table(path, columns=columns))
    except QwenOpsError as error:
        # Ray keeps only the text of an exception; the family must survive, it decides the exit status.
        facts = {"family": type(error).__name__, "message": f"{path.name}: {error.message}"}
        return {"error": json.dumps(facts | {name: getattr(error, name) for name in _ERROR_PARTS})}
    for name, table in result.tables.items():
        write_part(table, out / name / path.name)
    # The summary comes last and by rename: a part with a summary is complete.
    temporary = out / ".summaries" / f"{path.stem}.tmp"
    temporary.write_text(json.dumps(result.summary), encoding="utf-8")
    temporary.replace(temporary.with_suffix(".json"))
    return {"error": ""}


def _run(dataset: ray.data.Dataset) -> Iterator[dict[str, Any]]:
    try:
        yield from dataset.iter_rows()
    except ray.exceptions.RayError as error:
        # The cause is the last line of the first traceback in Ray's text.
        first = str(error).split("\nThe above exception", maxsplit=1)[0].strip()
        raise StageError(
            "a Ray task failed",
            expected="every part to be processed",
            found=first.rpartition("\n")[2],
            action="run again; finished parts are kept. With --debug the traceback is shown",
        ) from error


def _rebuild(facts: dict[str, str]) -> QwenOpsError:
    family = FAMILIES[facts.pop("family")]
    return family(facts.pop("message"), **facts)
