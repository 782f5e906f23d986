"""`qwenops cleanup FOLDER`: what lies in the folder of a run on this machine and no kept record names."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from qwenops.errors import RecipeError
from qwenops_pipelines.record import LATEST
from qwenops_pipelines.records import RunRecord, read_record

_STAGES, _KFP = "stages", "kfp"


@dataclass(frozen=True)
class Unused:
    """A folder that nothing kept names, and what it holds."""

    path: Path
    num_bytes: int


def find_unused(folder: Path, keep: int) -> tuple[list[Unused], list[Path]]:
    """Look through the folder of a run.

    Args:
        folder: Given to `--out`, or made by a run.
        keep: How many of the newest runs into it to keep, one at least; their artifacts stay.

    Returns:
        Artifacts that none of the kept runs made or reused, what stopped stages left behind, and KFP's bookkeeping of
        ended runs, by size, the largest first; and the folders of the records that go with them.

    Raises:
        RecipeError: no run lies there.
    """
    records = sorted(path.parent for path in folder.glob("*/run.json") if path.parent.name != LATEST)
    if not records:
        raise RecipeError(
            f"no run lies in {folder}",
            expected="the folder of runs, with a folder for each that ended",
            found="no */run.json",
            action="give what --out was, by default runs/RECIPE",
        )
    kept = [read_record(path) for path in records[-keep:]]
    stages = [stage for record in kept for stage in record.stages.values()]
    used = {Path(output.path).resolve() for stage in stages for output in stage.outputs.values()}
    used |= _continued(folder, records[-1], kept[-1])
    found = [path for path in (folder / _STAGES).glob("*/*") if path.is_dir() and path.resolve() not in used]
    found += [path for path in (folder / _KFP).glob("*") if path.is_dir()]
    sized = [Unused(path, _size(path)) for path in found]
    return sorted(sized, key=lambda one: -one.num_bytes), records[:-keep]


def remove(unused: list[Unused], records: list[Path]) -> None:
    """Delete what `find_unused` found; a record goes before the artifacts that it names."""
    for path in (*records, *(one.path for one in unused)):
        shutil.rmtree(path)


def _continued(folder: Path, newest: Path, record: RunRecord) -> set[Path]:
    """What stages that were stopped go on with: of the newest run if it failed, else of one that left no record."""
    ended = (newest / "run.json").stat().st_mtime if record.status == "succeeded" else 0.0
    scratch = (path for path in (folder / _STAGES).glob("*/.*") if path.is_dir())
    return {path.resolve() for path in scratch if path.stat().st_mtime > ended}


def _size(path: Path) -> int:
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
