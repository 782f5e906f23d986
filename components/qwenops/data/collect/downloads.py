"""Fetch pinned archives into the cache: resumed when cut short, verified by digest, published by rename.

Debian's pool is read over HTTP from the mirror the machine already uses; wheels and npm tarballs go through pip
and npm, so that the user's own index, proxy and certificates hold. Nothing is ever installed.
"""

import http.client
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from qwenops.contracts.manifest import file_digest
from qwenops.data.collect.config import ArchiveSource, CollectConfig, DebianSource, NpmSource, PypiSource
from qwenops.errors import PlatformError

_APT = Path("/etc/apt")
_BLOCK_BYTES = 1 << 16


def fetch(source: ArchiveSource, config: CollectConfig, cache: Path) -> Path:
    """Return the archive of `source` from the cache, downloading it first when it is not there.

    Raises:
        PlatformError: it cannot be reached, or what came has another digest.
    """
    folder = cache / source.sha256[:16]
    for path in sorted(folder.glob("*")):
        if path.suffix != ".part" and file_digest(path) == source.sha256:
            return path
    folder.mkdir(parents=True, exist_ok=True)
    match source:
        case DebianSource():
            fetched = _fetch_debian(source, config, folder)
        case PypiSource():
            fetched = _fetch_pypi(source, config, folder)
        case NpmSource():
            fetched = _fetch_npm(source, config, folder)
    found = file_digest(fetched)
    if found != source.sha256:
        fetched.unlink()
        raise PlatformError(
            f"{source.name}: the download has another checksum",
            expected=source.sha256,
            found=found,
            action="check the pinned version; the source is skipped until then",
        )
    return fetched


def debian_mirror(apt: Path = _APT) -> str:
    """Base address of the first Debian archive in this machine's apt configuration.

    Raises:
        PlatformError: apt is not configured here.
    """
    for path in sorted([apt / "sources.list", *(apt / "sources.list.d").glob("*.*")]):
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            match = re.search(
                r"^(?:deb\s+(?:\[[^\]]*\]\s*)?|URIs:\s*)(https?://\S+/debian)/?(?:\s|$)", text, re.MULTILINE
            )
            if match:
                return match.group(1)
    raise PlatformError(
        "no Debian mirror is known", expected="a deb line in /etc/apt", found="none", action="set collect.debian_mirror"
    )


def download(address: str, destination: Path, timeout_seconds: float) -> None:
    """Download `address`; a `.part` file left by an earlier attempt is continued.

    Raises:
        PlatformError: the server does not answer, or not with the file.
    """
    part = destination.with_name(destination.name + ".part")
    have = _size(part)
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        # 206 continues; a server that ignores the range sends the whole file with 200.
        with (
            urllib.request.urlopen(request, timeout=timeout_seconds) as answer,
            part.open("ab" if answer.status == 206 else "wb") as stream,
        ):
            shutil.copyfileobj(answer, stream, _BLOCK_BYTES)
            # A server that hangs up looks like the end of the file, but bytes are still owed.
            if answer.length:
                raise http.client.IncompleteRead(b"", answer.length)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == 416:
            part.unlink()  # the part was complete or too long; the next attempt starts afresh
        raise PlatformError(
            f"cannot download {destination.name}",
            expected=address,
            found=f"{error}; {_size(part)} bytes have arrived",
            action="check the network or the mirror; what has arrived is kept",
        ) from None
    part.replace(destination)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _fetch_debian(source: DebianSource, config: CollectConfig, folder: Path) -> Path:
    base = config.debian_mirror or debian_mirror()
    destination = folder / Path(source.pool_path).name
    download(f"{base.rstrip('/')}/{urllib.parse.quote(source.pool_path)}", destination, config.timeout_seconds)
    return destination


def _fetch_pypi(source: PypiSource, config: CollectConfig, folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--retries",
        "1",
        "--timeout",
        str(config.timeout_seconds),
        "--disable-pip-version-check",
        "--dest",
        str(folder),
        f"{source.package}=={source.version}",
    ]
    return _run_client(source.name, command, folder, "*.whl")


def _fetch_npm(source: NpmSource, config: CollectConfig, folder: Path) -> Path:
    command = [
        "npm",
        "pack",
        "--silent",
        "--ignore-scripts",
        "--fetch-retries",
        "1",
        "--fetch-timeout",
        str(int(config.timeout_seconds * 1000)),
        f"{source.package}@{source.version}",
    ]
    return _run_client(source.name, command, folder, "*.tgz")


def _run_client(name: str, command: list[str], folder: Path, pattern: str) -> Path:
    """Run a package client in `folder` and return the one file it left there."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        raise PlatformError(
            f"{name}: {command[0]} is not installed",
            expected=command[0],
            action=f"install {command[0]} or drop the source",
        ) from None
    files = sorted(folder.glob(pattern))
    if done.returncode or not files:
        raise PlatformError(
            f"{name}: {command[0]} could not download it",
            expected=command[-1],
            found=done.stderr.strip()[-500:],
            action="check the network or the package index",
        )
    return files[0]
