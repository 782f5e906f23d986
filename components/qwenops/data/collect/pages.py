"""Read the pages of a source: list its files, take them in an order given by a hash until the cap, read records.

The hash makes a capped source a fair sample of its files, the same on every machine, where the first files by name
would be one chapter or one package.
"""

import hashlib
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import BinaryIO

from qwenops.data.collect.archives import read_members
from qwenops.data.collect.config import (
    ArchiveSource,
    CodeSource,
    CollectConfig,
    FolderSource,
    HubSource,
    PageRule,
    PythonSource,
    Source,
)
from qwenops.data.collect.downloads import fetch
from qwenops.data.collect.environment import docstring_page, package_license, python_files
from qwenops.data.collect.hub import card_license, copy_dataset
from qwenops.data.collect.readers import read_records
from qwenops.data.collect.records import Record
from qwenops.data.collect.repositories import ENDINGS, UNKNOWN, license_of, program_files
from qwenops.errors import PlatformError
from qwenops.platform.identity.outside import readable
from qwenops.platform.storage.remote_files import is_address, list_files

_ID_CHARACTERS = 20


@dataclass(frozen=True)
class Page:
    """One row of `contracts.document.PAGE_SCHEMA`, or a dropped one when `reason` is set."""

    id: str
    source: str
    domain: str
    url: str
    license: str
    fetched_at: str
    mime: str
    lang_hint: str
    record_id: str
    raw: bytes
    reason: str = ""


@dataclass(frozen=True)
class File:
    """A file of a source that may become pages: where it is, under which rule, how to read it, or why it is dropped."""

    address: str
    rule: PageRule
    license: str
    fetched_at: str
    open: Callable[[], BinaryIO]
    reason: str = ""


def read_source(source: Source, config: CollectConfig, cache: Path) -> Iterator[Page]:
    """Yield the pages of one source, dropped ones included.

    Raises:
        PlatformError: the source cannot be reached; raised before the first page.
    """
    match source:
        case PythonSource():
            files = _environment_files(source)
        case FolderSource() if is_address(source.path):
            files = _remote_files(source)
        case FolderSource():
            files = _folder_files(source, Path(source.path).expanduser())
        case CodeSource():
            files = _code_files(source)
        case HubSource():
            folder = copy_dataset(source)
            terms = source.license or card_license(folder)
            files = _folder_files(source.model_copy(update={"license": terms}), folder)
        case _:
            files = _archive_files(source, config, cache)
    taken: dict[int, int] = {}
    seen: set[str] = set()
    for file in sorted(files, key=lambda file: hashlib.sha256(file.address.encode()).digest()):
        cap = math.inf if file.rule.cap_bytes is None else file.rule.cap_bytes
        if taken.get(id(file.rule), 0) >= cap:
            continue
        for record in _read(source, file, config.max_page_bytes):
            page = _page(source.name, file, record)
            if record.anchor and not record.anchor.startswith("#"):  # these are numbered within their file
                if page.id in seen:
                    page = replace(page, reason="repeated_address")
                seen.add(page.id)
            if not page.reason:
                taken[id(file.rule)] = taken.get(id(file.rule), 0) + len(page.raw)
                if taken[id(file.rule)] > cap:
                    break
            yield page


def _read(source: Source, file: File, max_bytes: int) -> Iterator[Record]:
    if file.reason:
        yield Record("", "text/plain", b"", file.reason)
        return
    try:
        stream = file.open()
    except OSError:
        yield Record("", "text/plain", b"", "unreadable")
        return
    with stream:
        if isinstance(source, PythonSource) and source.content == "docstrings":
            yield _docstrings(file.address, stream)
        else:
            yield from read_records(file.address, stream, max_bytes)


def _docstrings(address: str, stream: BinaryIO) -> Record:
    name = address.rpartition("://")[2].removesuffix(".py").replace("/", ".")
    try:
        text = docstring_page(stream.read().decode("utf-8"), name)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return Record("", "text/plain", b"", "unreadable")
    return Record("", "text/plain", text.encode("utf-8", "replace"), "" if text else "no_text")


def _page(source: str, file: File, record: Record) -> Page:
    """The page of a record: what a row says of itself goes before what its file and source say."""
    place = record.anchor if "://" in record.anchor else file.address + record.anchor
    digest = hashlib.sha256(f"{source}\0{place}".encode("utf-8", "replace")).hexdigest()
    return Page(
        digest[:_ID_CHARACTERS],
        source,
        file.rule.domain,
        record.url or place,
        record.license or file.license,
        record.date or file.fetched_at,
        record.mime,
        record.lang or file.rule.lang,
        record.record_id,
        record.raw,
        record.reason,
    )


def _archive_files(source: ArchiveSource, config: CollectConfig, cache: Path) -> list[File]:
    archive = fetch(source, config, cache)
    date = _date(archive)
    files: list[File] = []
    for name, raw in read_members(archive, lambda name: _rule(source.rules, name) is not None):
        rule = _rule(source.rules, name)
        if rule is not None:
            opener = partial(io.BytesIO, raw)
            files.append(File(f"{source.kind}://{source.name}/{readable(name)}", rule, source.license, date, opener))
    if not files:
        raise PlatformError(
            f"{source.name}: no file matches its rules",
            expected=", ".join(rule.pattern for rule in source.rules),
            found=f"none in {archive.name}",
            action="look into the archive and mend the patterns",
        )
    return files


def _environment_files(source: PythonSource) -> list[File]:
    lang = "en" if source.content == "docstrings" else ""
    rule = PageRule(pattern="*", domain=source.domain, lang=lang, cap_bytes=source.cap_bytes)
    files: list[File] = []
    for package in source.packages:
        terms = package_license(package)
        files += [File(address, rule, terms, _date(path), _opener(path)) for address, path in python_files(package)]
    if not files:
        raise PlatformError(
            f"{source.name}: nothing of it is installed",
            expected=", ".join(source.packages),
            found="no Python file",
            action="install the packages or drop the source",
        )
    return files


def _folder_files(source: FolderSource | HubSource, root: Path) -> list[File]:
    _check_exists(source.name, root)
    base = root if root.is_dir() else root.parent
    paths = [path for path in (root.rglob("*") if root.is_dir() else [root]) if path.is_file()]
    named = [(readable(path.relative_to(base).as_posix()), path) for path in paths]
    return [
        File(f"{source.kind}://{source.name}/{name}", rule, source.license, _date(path), _opener(path))
        for name, path in named
        if (rule := _rule(source.rules, name)) is not None
    ]


def _code_files(source: CodeSource) -> list[File]:
    root = Path(source.path).expanduser()
    _check_exists(source.name, root)
    rule = PageRule(pattern="*", domain="code", cap_bytes=source.cap_bytes)
    files: list[File] = []
    for name, path in ((readable(name), path) for name, path in program_files(root, ENDINGS)):
        try:
            terms, reason = source.license or license_of(path, root), ""
        except OSError:
            terms, reason = UNKNOWN, "unreadable"
        if not reason and source.allowed and terms not in source.allowed:
            reason = "license"
        files.append(File(f"code://{source.name}/{name}", rule, terms, _date(path), _opener(path), reason))
    return files


def _check_exists(name: str, root: Path) -> None:
    if not root.exists():
        raise PlatformError(
            f"{name}: there is no such folder",
            expected=str(root),
            found="nothing",
            action="correct collect.sources or mount the data",
        )


def _remote_files(source: FolderSource) -> list[File]:
    return [
        File(f"folder://{source.name}/{file.name}", rule, source.license, file.date, file.open)
        for file in list_files(source.path)
        if (rule := _rule(source.rules, file.name)) is not None
    ]


def _rule(rules: tuple[PageRule, ...], name: str) -> PageRule | None:
    return next((rule for rule in rules if fnmatchcase(name, rule.pattern)), None)


def _date(path: Path) -> str:
    """The day a file came to this machine: stable over reruns, unlike the time of reading; "" when it has gone."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
    except FileNotFoundError:
        return ""


def _opener(path: Path) -> Callable[[], BinaryIO]:
    return partial(path.open, "rb")
