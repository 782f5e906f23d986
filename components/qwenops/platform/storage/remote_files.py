"""List and open files at fsspec addresses: `s3://`, `https://`, `hf://` and the others of `recipe.addresses`.

A library that speaks to a store is imported when an address of its kind is met, and its own errors become `OSError`, so
that a reader treats a store that goes away as it treats a disk.
"""

import io
import json
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from qwenops.errors import PlatformError
from qwenops.recipe.addresses import EXTRAS

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Where S3 is, when it is not Amazon's; the first that is set counts.
S3_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")
_BLOCK_BYTES = 1 << 20
_DATE_FIELDS = ("LastModified", "last_modified", "updated", "mtime", "created")
# What stores say of a file's content, the web's last: equal values mean an unchanged file.
_VERSION_FIELDS = ("ETag", "etag", "md5Hash", "crc32c", "blob_id", "Content-MD5", "Digest", "Last-Modified")
_LIBRARY_ERRORS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"),
    ("httpx", "HTTPError"),
    ("httpx2", "HTTPError"),
)


@dataclass(frozen=True)
class RemoteFile:
    """A file below an address.

    Attributes:
        name: Its path below the address; its own name where the address is a file.
        date: Day of its last change as the store says it, ISO 8601; today where the store does not.
        version: Its size, and what the store says of its content or the time of its last change.
    """

    name: str
    date: str
    version: str
    store: AbstractFileSystem
    path: str

    def open(self) -> BinaryIO:
        """A buffered stream of its bytes.

        Raises:
            OSError: the store does not give it.
        """
        # A web server need not know ranges: its files are read from front to end.
        options = {"block_size": 0} if self.path.startswith("http") else {}
        with as_os_errors():
            return io.BufferedReader(_Guarded(self.store.open(self.path, "rb", **options)), _BLOCK_BYTES)


def is_address(place: str) -> bool:
    """Whether `place` is an address of a store, not a path of this machine."""
    return "://" in place


def open_store(address: str) -> tuple[AbstractFileSystem, str]:
    """The fsspec file system of an address, and the path in it.

    Raises:
        PlatformError: the kind of address is unknown, or the library for it is not installed.
    """
    scheme = address.split("://", 1)[0]
    options: dict[str, Any] = {}
    if scheme == "s3":
        endpoint = next((os.environ[name] for name in S3_ENDPOINTS if os.environ.get(name)), None)
        options = {"endpoint_url": endpoint, "use_listings_cache": False}
    try:
        return url_to_fs(address, **options)
    except (ImportError, ValueError) as error:
        raise PlatformError(
            f"no access to {scheme}:// addresses here",
            expected="an fsspec address whose library is installed",
            found=error,
            action=f"pip install 'qwenops[{EXTRAS[scheme]}]'" if scheme in EXTRAS else "install what the message names",
        ) from error


def list_files(address: str) -> list[RemoteFile]:
    """The files below an address, in order of their paths; the one file where it is a file.

    Raises:
        PlatformError: the store cannot be reached, or there is nothing.
    """
    store, root = open_store(address)
    try:
        with as_os_errors():
            found = {root: store.info(root)} if _is_file(store, address, root) else store.find(root, detail=True)
    except OSError as error:
        raise PlatformError(
            f"cannot list {address}",
            expected="a reachable store and the right to read it",
            found=f"{type(error).__name__}: {error}",
            action="check the address, the network and the store's keys",
        ) from error
    if not found:
        raise PlatformError(f"nothing at {address}", expected="files", found="none", action="correct the address")
    base = root if len(found) > 1 or root not in found else str(PurePosixPath(root).parent)
    return [
        RemoteFile(path.removeprefix(base).lstrip("/"), _date(facts), _version(facts), store, path)
        for path, facts in sorted(found.items())
    ]


@contextmanager
def as_os_errors() -> Generator[None]:
    """Raise the errors of the libraries that speak to stores as `OSError`."""
    loaded = [(sys.modules[module], name) for module, name in _LIBRARY_ERRORS if module in sys.modules]
    try:
        yield
    except tuple(getattr(module, name) for module, name in loaded) as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


class _Guarded(io.RawIOBase):
    def __init__(self, inner: BinaryIO) -> None:
        self._inner = inner

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._inner.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer).cast("B")
        with as_os_errors():
            piece = self._inner.read(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._inner.close()
        super().close()


def _is_file(store: AbstractFileSystem, address: str, root: str) -> bool:
    # A web server lists nothing; what does not end like a folder is one file.
    return not address.endswith("/") if address.startswith("http") else store.isfile(root)


def _date(facts: dict[str, Any]) -> str:
    """The day a store says the file changed: stable over reruns."""
    for name in _DATE_FIELDS:
        match facts.get(name):
            case datetime() as moment:
                return moment.astimezone(UTC).date().isoformat()
            case str() as text if text:
                return text[:10]
            case float() | int() as seconds:
                return datetime.fromtimestamp(seconds, UTC).date().isoformat()
            case _:
                continue
    return datetime.now(UTC).date().isoformat()


def _version(facts: dict[str, Any]) -> str:
    content = {name: str(facts[name]) for name in _VERSION_FIELDS if facts.get(name)}
    dates = {name: str(facts[name]) for name in _DATE_FIELDS if facts.get(name)}
    return json.dumps({"size": facts.get("size")} | (content or dates), sort_keys=True)
