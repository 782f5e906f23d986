"""Look into Debian packages, wheels and tarballs without unpacking them to disk.

A .deb is an `ar` archive whose `data.tar.*` holds the files; sixty lines read it, so that no dpkg is needed.
Members are read once, in archive order, because an xz stream cannot be read backwards cheaply.
"""

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from qwenops.errors import PlatformError

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER_BYTES = 60


def read_members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield (path, bytes) of the regular files whose path is `wanted`.

    Raises:
        PlatformError: the archive is damaged or of an unknown kind.
    """
    try:
        if archive.suffix in (".whl", ".zip"):
            yield from _read_zip(archive, wanted)
        elif archive.suffix == ".deb":
            yield from _read_tar(io.BytesIO(_deb_data(archive)), wanted)
        else:
            with archive.open("rb") as stream:
                yield from _read_tar(stream, wanted)
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise PlatformError(
            f"cannot read {archive.name}",
            expected="a .deb, .whl, .zip or .tar.* archive",
            found=error,
            action=f"remove {archive} and run again",
        ) from error


def _read_zip(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(archive) as files:
        for info in files.infolist():
            if not info.is_dir() and wanted(info.filename):
                yield info.filename, files.read(info)


def _read_tar(stream: io.BufferedIOBase, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=stream, mode="r:*") as files:
        for info in files:
            name = info.name.removeprefix("./")
            content = files.extractfile(info) if info.isfile() and wanted(name) else None
            if content is not None:
                yield name, content.read()


def _deb_data(archive: Path) -> bytes:
    """The bytes of the `data.tar.*` member of a .deb."""
    with archive.open("rb") as stream:
        if stream.read(len(_AR_MAGIC)) != _AR_MAGIC:
            raise tarfile.ReadError("not an ar archive")
        while len(header := stream.read(_AR_HEADER_BYTES)) == _AR_HEADER_BYTES:
            size = int(header[48:58])
            if header[:16].rstrip(b" /").startswith(b"data.tar"):
                return stream.read(size)
            stream.seek(size + size % 2, io.SEEK_CUR)
    raise tarfile.ReadError("no data.tar in it")
