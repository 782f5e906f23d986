"""Artifacts and texts at a place, a folder or an address of an object store.

Stages read and write folders only. An artifact of an object store is copied below the cache and verified against its
manifest before a stage sees it.
"""

import uuid
from pathlib import Path

from qwenops.contracts.manifest import MANIFEST, Manifest, is_intact, read_manifest
from qwenops.errors import ContractError
from qwenops.platform.context import RunContext
from qwenops.platform.storage.addresses import PUBLISHED_MARK, STORE_ID, is_remote, local_path


def local_copy(place: str | Path, context: RunContext) -> Path:
    """The local folder of an input, copied and verified when `place` is an address of an object store.

    Raises:
        ContractError: the object store holds no such artifact, or not the one its manifest describes.
        PlatformError: the object store cannot be reached.
    """
    folder = local_path(place, context)
    if is_remote(place) and not object_store().fetch(str(place), folder):
        raise ContractError(
            f"no intact artifact at {place}",
            expected="a manifest, and every file it names with its digest",
            found="a missing or changed object",
            action="run the stage that makes it again",
        )
    return folder


def list_artifacts(place: str) -> list[str]:
    """The places of the artifacts directly below `place`, in no order."""
    if is_remote(place):
        return object_store().artifacts(place)
    return [str(path.parent) for path in Path(place).glob(f"[!.]*/{MANIFEST}")]


def manifest(place: str) -> Manifest | None:
    """The manifest of the artifact at `place`, or None where there is none."""
    if is_remote(place):
        return object_store().manifest(place)
    return read_manifest(Path(place)) if (Path(place) / MANIFEST).is_file() else None


def is_complete(place: str, context: RunContext) -> bool:
    """Whether the artifact at `place` is as its manifest says; one of an object store is copied here for it."""
    if is_remote(place):
        return object_store().fetch(place, local_path(place, context))
    found = manifest(place)
    return found is not None and is_intact(Path(place), found)


def has_lost(place: str) -> bool:
    """Whether an artifact was published below `place` that is no longer there."""
    if is_remote(place):
        return object_store().has_lost(place)
    made = [
        path.name.removeprefix(".").removesuffix(PUBLISHED_MARK) for path in Path(place).glob(f".*{PUBLISHED_MARK}")
    ]
    return not all((Path(place) / key / MANIFEST).is_file() for key in made)


def store_id(store: str) -> str:
    """The name a store was given when it was first used; a new store has another, so nothing cached stands for it."""
    if is_remote(store):
        return object_store().store_id(store)
    place = Path(store) / STORE_ID
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with place.open("x", encoding="utf-8") as stream:
            stream.write(uuid.uuid4().hex[:12])
    except FileExistsError:
        pass
    return place.read_text(encoding="utf-8")


def write_text(place: str, text: str) -> None:
    """Write `text` to `place`, a path or an address, in one step."""
    if is_remote(place):
        object_store().write_text(place, text)
        return
    path = Path(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def read_text(place: str) -> str:
    """The text at `place`, a path or an address.

    Raises:
        ContractError: there is none.
        PlatformError: the object store cannot be reached.
    """
    try:
        return object_store().read_text(place) if is_remote(place) else Path(place).read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError) as error:
        raise ContractError(
            f"no text at {place}",
            expected="a file in UTF-8",
            found=f"{type(error).__name__}: {error}",
            action="check the path or address; if a run put it there, start the run again",
        ) from None


def object_store():
    """The module that speaks to object stores."""
    # fsspec and botocore, which a store that is a folder does not need.
    from qwenops.platform.storage import object_store

    return object_store
