"""Digests of what a recipe names outside itself: files by content, hub ids by commit, packages by version.

A file is read again only when its size, its time or the time of its last change of any kind differ from what the cache
remembers, so a folder that did not change costs a listing. What cannot be reached counts as it was when it last could.
"""

import importlib.metadata
import importlib.util
import os
import platform
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from qwenops.contracts.manifest import file_digest
from qwenops.errors import PlatformError
from qwenops.platform.identity.definitions import digest_of
from qwenops.recipe.outside import Outside

ABSENT = "absent"
_PINNED = "pypi:"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_SECONDS = 10
# House choice: the coarsest times of file systems in use. A file that changed more recently may change again unseen.
_SETTLED_NANOSECONDS = 2 * 10**9
# Distributions whose name is not that of the module they bring.
_DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "bs4": "beautifulsoup4",
    "yaml": "PyYAML",
    "PIL": "pillow",
    "markdown_it": "markdown-it-py",
    "stdnum": "python-stdnum",
}
_STDLIB = "stdlib"


def digest_outside(thing: Outside, cache: Path) -> str:
    """Digest, commit or version of `thing`; "absent" where there is nothing of that name.

    Args:
        thing: What a config names.
        cache: Folder that remembers digests from run to run.
    """
    match thing.kind:
        case "package":
            return _package(thing.name, cache)
        case "dataset":
            return _commit("dataset", thing.name, thing.revision, cache)
        case "model" if thing.name.startswith(_PINNED):
            return "pinned"
        case "model" if not Path(thing.name).expanduser().exists() and _HUB_ID.fullmatch(thing.name.partition("@")[0]):
            name, _, revision = thing.name.partition("@")
            return _commit("model", name, revision or thing.revision, cache)
        case _ if "://" in thing.name:
            return _address(thing.name, cache)
        case _:
            return _local(Path(thing.name).expanduser(), cache, hidden=thing.kind != "code")


def readable(name: str) -> str:
    """A file name as text; bytes that are not UTF-8 are written in hexadecimal, so that two names stay two."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def library_version(name: str) -> str:
    """Version of the distribution that brings the module `name`; empty where it is not installed."""
    try:
        return importlib.metadata.version(_DISTRIBUTIONS.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        return ""


def _local(root: Path, cache: Path, *, hidden: bool) -> str:
    memory = _Memory(cache, str(root.absolute()))
    if not root.exists():
        return ABSENT
    base = root if root.is_dir() else root.parent
    digests: dict[str, str] = {}
    for path in _files_below(root, hidden=hidden) if root.is_dir() else [root]:
        name = readable(path.relative_to(base).as_posix())
        try:
            digests[name] = memory.digest(name, path)
        except OSError as error:
            digests[name] = type(error).__name__
    memory.keep()
    return digest_of(*(f"{name}\0{digests[name]}" for name in sorted(digests)))


def _files_below(root: Path, *, hidden: bool) -> Iterator[Path]:
    for place, names, files in os.walk(root):
        if not hidden:
            names[:] = [name for name in names if not name.startswith(".")]
            files = [name for name in files if not name.startswith(".")]
        yield from (path for name in files if (path := Path(place) / name).is_file())


def _address(address: str, cache: Path) -> str:
    # fsspec, which only a recipe with addresses needs.
    from qwenops.platform.storage import remote_files as files

    memory = _Memory(cache, address)
    try:
        return memory.remember(digest_of(*(f"{file.name}\0{file.version}" for file in files.list_files(address))))
    except PlatformError:
        return memory.remembered()


def _commit(kind: str, name: str, revision: str, cache: Path) -> str:
    """The commit that the Hub's client would load now: the Hub's own, or without a network that of its cache."""
    if _COMMIT.fullmatch(revision):
        return revision
    # The Hub's client, as in `commit_at_hub`.
    from huggingface_hub import constants

    folder = f"{kind}s--{name.replace('/', '--')}"
    cached = Path(constants.HF_HUB_CACHE) / folder / "refs" / (revision or "main")
    memory = _Memory(cache, f"{kind} {name} {revision}")
    if not constants.HF_HUB_OFFLINE:
        try:
            return memory.remember(commit_at_hub(kind, name, revision))
        except (OSError, ValueError):
            pass  # No network, no such id, no right to read it: what the cache holds is what a stage can load.
    return cached.read_text(encoding="utf-8").strip() if cached.is_file() else memory.remembered()


def commit_at_hub(kind: str, name: str, revision: str) -> str:
    """The commit that a revision of a model or data set stands for now, as the Hub says.

    Raises:
        OSError: it cannot be reached or does not give it.
    """
    # The Hub's client and fsspec, which only a recipe with a hub id needs.
    from huggingface_hub import HfApi

    # As above.
    from qwenops.platform.storage import remote_files

    with remote_files.as_os_errors():
        facts = HfApi().repo_info(name, repo_type=kind, revision=revision or None, timeout=_HUB_SECONDS)
    if not facts.sha:
        raise OSError(f"the Hub names no commit of {name}")
    return facts.sha


def _package(name: str, cache: Path) -> str:
    if name == _STDLIB:
        return platform.python_version()
    try:
        facts = importlib.metadata.distribution(_DISTRIBUTIONS.get(name, name))
        if '"editable": true' not in (facts.read_text("direct_url.json") or ""):
            return facts.version
    except importlib.metadata.PackageNotFoundError:
        pass  # A module of a distribution of another name, or of none: its files say what it is.
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or filter(None, [spec.origin])) if spec else []
    return digest_of(*(_local(Path(place), cache, hidden=False) for place in places)) if places else ABSENT


Stamp = tuple[int, int, int, str]


@dataclass(frozen=True)
class _Remembered:
    """What the file of a `_Memory` holds: file name to size, times of last changes and digest; one word for all."""

    files: dict[str, Stamp] = field(default_factory=dict[str, Stamp])
    word: str = ABSENT


_REMEMBERED = TypeAdapter(_Remembered)


class _Memory:
    """What is remembered of one thing: the digests of its files, or one word for all of it."""

    def __init__(self, cache: Path, name: str) -> None:
        self._path = cache / "identity" / f"{digest_of(name)}.json"
        self._now = time.time_ns()
        self._seen: dict[str, Stamp] = {}
        try:
            self._known = _REMEMBERED.validate_json(self._path.read_bytes())
        except (OSError, ValueError):
            self._known = _Remembered()

    def digest(self, name: str, path: Path) -> str:
        """SHA-256 of a file, from memory where nothing about the file is newer than it."""
        facts = path.stat()
        stamp = (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        known = self._known.files.get(name)
        digest = known[3] if known and known[:3] == stamp else file_digest(path)
        if self._now - max(stamp[1:]) > _SETTLED_NANOSECONDS:
            self._seen[name] = (*stamp, digest)
        return digest

    def keep(self) -> None:
        """Remember the files looked at."""
        if self._seen != self._known.files:
            self._write(_Remembered(files=self._seen))

    def remember(self, word: str) -> str:
        """Remember `word`; returns it."""
        if self._known.word != word:
            self._write(_Remembered(word=word))
        return word

    def remembered(self) -> str:
        """The word remembered, "absent" for none."""
        return self._known.word

    def _write(self, known: _Remembered) -> None:
        draft = self._path.with_suffix(f".{uuid.uuid4().hex}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(_REMEMBERED.dump_json(known))
            draft.replace(self._path)
        except OSError:
            return  # Without a memory files are read each time.
