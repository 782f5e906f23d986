"""Where an artifact lies and where this machine has it: a folder is its own copy, an `s3://` address has a local one.

The two can be computed from each other, so records name the object store and never a folder of one pod.
"""

from pathlib import Path

from qwenops.platform.context import RunContext

PUBLISHED_MARK = ".made"
"""Ending of the file beside an artifact that outlives it, by which a deleted artifact is noticed."""
STORE_ID = ".store-id"
_SCHEME = "s3://"
_COPIES = "object-store"


def is_remote(place: str | Path) -> bool:
    """Whether `place` is an address of an object store."""
    return str(place).startswith(_SCHEME)


def local_path(place: str | Path, context: RunContext) -> Path:
    """The local folder of `place`: itself, or where its copy belongs."""
    if not is_remote(place):
        return Path(place)
    return Path(context.cache) / _COPIES / str(place).removeprefix(_SCHEME).rstrip("/")


def address_of(path: Path, context: RunContext) -> str:
    """The place whose local folder is `path`: the opposite of `local_path`."""
    copies = Path(context.cache) / _COPIES
    return _SCHEME + path.relative_to(copies).as_posix() if path.is_relative_to(copies) else str(path)


def files_address(folder: Path, artifact_id: str, context: RunContext) -> str:
    """Where the files of the artifact lie whose local folder is `folder`: below its address in an object store."""
    place = address_of(folder, context)
    return f"{place}/{artifact_id}" if is_remote(place) else place


def runs_folder(context: RunContext) -> Path:
    """Holds one folder per finished run on a cluster: beside the store, or in the cache of an object store."""
    return (Path(context.cache) if is_remote(context.store) else Path(context.store).parent) / "runs"
