"""Where an artifact lies and where this machine has it: a folder is its own copy, an `s3://` address has a local one.

Stages read and write folders only. An artifact of an object store is copied below the cache and verified against
its manifest before a stage sees it; the two addresses can be computed from each other, so records name the
object store and never a folder of one pod.
"""

import importlib
from pathlib import Path

from qwenops.errors import ContractError
from qwenops.platform.context import RunContext

_SCHEME = "s3://"
_COPIES = "object-store"


def is_remote(place: str | Path) -> bool:
    """Whether `place` is an address of an object store."""
    return str(place).startswith(_SCHEME)


def mirror(place: str | Path, context: RunContext) -> Path:
    """The local folder of `place`: itself, or where its copy belongs."""
    if not is_remote(place):
        return Path(place)
    return Path(context.cache) / _COPIES / str(place).removeprefix(_SCHEME).rstrip("/")


def address(path: Path, context: RunContext) -> str:
    """The place whose local folder is `path`: the opposite of `mirror`."""
    copies = Path(context.cache) / _COPIES
    return _SCHEME + path.relative_to(copies).as_posix() if path.is_relative_to(copies) else str(path)


def files_address(folder: Path, artifact_id: str, context: RunContext) -> str:
    """Where the files of the artifact lie whose local folder is `folder`: below its address in an object store."""
    place = address(folder, context)
    return f"{place}/{artifact_id}" if is_remote(place) else place


def localized(place: str | Path, context: RunContext) -> Path:
    """The local folder of an input, copied and verified when `place` is an address of an object store.

    Raises:
        ContractError: the object store holds no such artifact, or not the one its manifest describes.
        PlatformError: the object store cannot be reached.
    """
    folder = mirror(place, context)
    if is_remote(place) and not object_store().fetch(str(place), folder):
        raise ContractError(
            f"no intact artifact at {place}",
            expected="a manifest, and every file it names with its digest",
            found="a missing or changed object",
            action="run the stage that makes it again",
        )
    return folder


def object_store():
    """The module that speaks to object stores; its libraries are imported on first use."""
    return importlib.import_module("qwenops.platform.object_store")
