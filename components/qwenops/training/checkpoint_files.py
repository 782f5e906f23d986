"""The files of a checkpoint: digests, publication by rename, verification, how many are kept.

A folder `step-<number>` holds what torch.distributed.checkpoint wrote, one `rank-<n>.pt` per worker and, written last,
`checkpoint.json` with the counters and the SHA-256 of every other file. A folder is written under a temporary name and
renamed when it is whole, so a kill leaves the checkpoints before it and never half of one under a good name.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwenops.contracts.json_text import replace_not_finite

STATE_FILE = "checkpoint.json"
_PREFIX, _PART, _DAMAGED = "step-", ".part", ".damaged"


def partial_folder(root: Path, step: int) -> Path:
    """Where the checkpoint of `step` is written before it is published."""
    return root / f"{_PREFIX}{step:09d}{_PART}"


def list_checkpoints(root: Path) -> list[Path]:
    """Published checkpoints, newest first."""
    return sorted((p for p in root.glob(f"{_PREFIX}*") if p.name.removeprefix(_PREFIX).isdigit()), reverse=True)


def publish(part: Path, facts: Mapping[str, Any]) -> Path:
    """Write `facts` and the digests of all files into `part`, flush it to the disk and give it its final name."""
    digests = {path.name: digest(path) for path in sorted(part.iterdir()) if path.name != STATE_FILE}
    (part / STATE_FILE).write_text(
        json.dumps(replace_not_finite({**facts, "digests": digests}), allow_nan=False), encoding="utf-8"
    )
    for path in part.iterdir():
        _flush(path)
    final = part.with_name(part.name.removesuffix(_PART))
    if final.exists():
        shutil.rmtree(final)
    os.replace(part, final)
    _flush(final.parent)
    return final


def read_state(folder: Path) -> dict[str, Any] | None:
    """The facts of a published checkpoint; None when they cannot be read."""
    try:
        return json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def find_corruption(folder: Path, part: int = 0, parts: int = 1) -> str:
    """What is wrong with a checkpoint, or "" when its files are those that were written.

    Args:
        folder: A published checkpoint.
        part: Which share of the files this worker reads.
        parts: Into how many shares the files are divided.
    """
    facts = read_state(folder)
    if facts is None or "digests" not in facts:
        return f"{STATE_FILE} cannot be read"
    for name, expected in sorted(facts["digests"].items())[part::parts]:
        path = folder / name
        if not path.exists():
            return f"{name} is missing"
        if digest(path) != expected:
            return f"{name} is not what was written"
    return ""


def quarantine(folder: Path) -> None:
    """Rename a damaged checkpoint, so that it is never tried again; an older one of the same step is dropped."""
    aside = folder.with_name(folder.name + _DAMAGED)
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(folder, aside)


def prune(root: Path, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints, and what kills left half-written."""
    for old in [*list_checkpoints(root)[keep:], *root.glob(f"{_PREFIX}*{_PART}")]:
        shutil.rmtree(old)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
