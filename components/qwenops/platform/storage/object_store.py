"""Artifacts in S3, with the guarantees of a folder and a rename that S3 does not have.

An artifact at `<address>` is `<address>/manifest.json` and, below `<address>/<artifact_id>/`, the files it names. The
files go first, under a prefix no other production shares; the manifest is created last, by a write that the store
refuses when there is one already. So an artifact is visible whole or not at all, and of two publishers one wins and
neither mixes with the other. Copying a draft prefix to its final place would pass every byte twice and leave the
second publisher's files under the first one's manifest.

The endpoint is that of `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` or `MLFLOW_S3_ENDPOINT_URL`; keys come from boto's
chain.
"""

import contextlib
import shutil
import tempfile
import threading
import uuid
from collections.abc import Generator
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from fsspec import AbstractFileSystem

from qwenops.contracts.manifest import MANIFEST, Manifest, is_intact, read_manifest
from qwenops.errors import ContractError, PlatformError
from qwenops.platform.storage.addresses import PUBLISHED_MARK, STORE_ID
from qwenops.platform.storage.remote_files import S3_ENDPOINTS, open_store

_SECONDS_BETWEEN_COPIES = 60.0
Mark = tuple[int, int]


def publish(folder: Path, url: str) -> bool:
    """Publish `folder`, whose manifest is written, at `url`.

    Returns:
        Whether it was published; False when another production is there already, which then counts.

    Raises:
        PlatformError: the store cannot be reached or refuses the write; nothing is visible then.
    """
    manifest, store = read_manifest(folder), _store()
    prefix = _prefix(url, manifest)
    with _reaching(url):
        names = sorted(manifest.files)
        if names:
            store.put([str(folder / name) for name in names], [f"{prefix}/{name}" for name in names])
        try:
            store.pipe_file(f"{url}/{MANIFEST}", (folder / MANIFEST).read_bytes(), mode="create")
        except FileExistsError:
            _remove(store, prefix)
            return False
        store.touch(_beside(url, PUBLISHED_MARK))
    return True


def fetch(url: str, folder: Path) -> bool:
    """Make `folder` a verified copy of the artifact at `url`; a copy that is intact is kept.

    Returns:
        False when there is no manifest, or an object is missing or differs from it.

    Raises:
        PlatformError: the store cannot be reached.
    """
    store, draft = _store(), folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.fetch")
    draft.mkdir(parents=True)
    try:
        manifest = _fetch_manifest(store, url, draft)
        if manifest is None:
            return False
        if _is_copy(folder, manifest):
            return True
        with _reaching(url):
            _download(store, _prefix(url, manifest), manifest, draft)
        if not is_intact(draft, manifest):
            return False
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            draft.replace(folder)
        # Another process of this machine may have been first; what counts is that the copy is right.
        return _is_copy(folder, manifest)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def artifacts(url: str) -> list[str]:
    """The addresses of the artifacts directly below `url`."""
    with _reaching(url):
        return [f"s3://{place}".removesuffix(f"/{MANIFEST}") for place in _store().glob(f"{url}/*/{MANIFEST}")]


def manifest(url: str) -> Manifest | None:
    """The manifest of the artifact at `url`, or None where there is none that can be read."""
    with _reaching(url), tempfile.TemporaryDirectory() as folder:
        try:
            _store().get_file(f"{url}/{MANIFEST}", str(Path(folder) / MANIFEST))
            return read_manifest(Path(folder))
        except (FileNotFoundError, ContractError):
            return None


def has_lost(url: str) -> bool:
    """Whether an artifact was published below `url` that is no longer there."""
    with _reaching(url):
        made = [f"s3://{place}" for place in _store().glob(f"{url}/.*{PUBLISHED_MARK}")]
    return not set(made) <= {_beside(there, PUBLISHED_MARK) for there in artifacts(url)}


def store_id(url: str) -> str:
    """The name the store at `url` was given when it was first used."""
    store = _store()
    with _reaching(url):
        with contextlib.suppress(FileExistsError):
            store.pipe_file(f"{url}/{STORE_ID}", uuid.uuid4().hex[:12].encode(), mode="create")
        return _text_at(store, f"{url}/{STORE_ID}")


def write_text(url: str, text: str) -> None:
    """Write `text` to the object at `url`."""
    with _reaching(url):
        _store().pipe_file(url, text.encode())


def read_text(url: str) -> str:
    """The text of the object at `url`.

    Raises:
        FileNotFoundError: there is none.
    """
    store = _store()
    with _reaching(url):
        if store.exists(url):
            return _text_at(store, url)
    raise FileNotFoundError(url)


def delete(url: str) -> None:
    """Take the artifact at `url` away, its manifest first."""
    store = _store()
    with _reaching(url):
        _remove(store, f"{url}/{MANIFEST}")
        _remove(store, url)


@contextlib.contextmanager
def back_up_scratch(
    scratch: Path, url: str, seconds: float = _SECONDS_BETWEEN_COPIES, leave: str = ""
) -> Generator[None]:
    """Keep a copy of the scratch folder at `url` while the block runs, so that another pod can resume from it.

    An empty scratch folder is filled from the copy first. The copy is renewed every `seconds` and when the block
    fails, and removed when it succeeds. Files called `leave` stay out of it.

    Raises:
        PlatformError: the copy cannot be read at the start.
    """
    copy = _ScratchCopy(scratch, url, seconds, leave)
    copy.restore()
    copy.start()
    try:
        yield
    except BaseException:
        copy.stop()
        with contextlib.suppress(PlatformError):
            copy.renew()
        raise
    copy.stop()
    with _reaching(url):
        _remove(_store(), url)


class _ScratchCopy(threading.Thread):
    """Copies changed files.

    Readers follow JSON files to others (`latest.json`), so those go last; files that are gone here go after them, so
    that the copy is one a loop can resume from at any moment. Files that are only added to (`curves.jsonl`) go after
    the states that they tell of, so that no point before a state is missing.
    """

    def __init__(self, scratch: Path, url: str, seconds: float, leave: str) -> None:
        super().__init__(daemon=True, name="scratch-copy")
        self._scratch, self._url, self._seconds, self._leave = scratch, url, seconds, leave
        self._copied: dict[str, Mark] = {}
        self._stopped = threading.Event()

    def restore(self) -> None:
        if any(self._scratch.iterdir()):
            return
        store = _store()
        with _reaching(self._url):
            for place in store.find(self._url):
                name = place.removeprefix(self._url.removeprefix("s3://") + "/")
                target = self._scratch / name
                target.parent.mkdir(parents=True, exist_ok=True)
                store.get_file(f"{self._url}/{name}", str(target))
        self._copied = self._files()

    def run(self) -> None:
        while not self._stopped.wait(self._seconds):
            # The next round tries again; a stage does not end for want of a second copy.
            with contextlib.suppress(PlatformError):
                self.renew()

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def renew(self) -> None:
        found, store = self._files(), _store()
        changed = [name for name, mark in found.items() if self._copied.get(name) != mark]
        with _reaching(self._url):
            for name in sorted(changed, key=lambda name: (name.endswith(".json"), name.endswith(".jsonl"), name)):
                # A checkpoint that was replaced meanwhile is in the next round.
                with contextlib.suppress(FileNotFoundError):
                    store.put_file(str(self._scratch / name), f"{self._url}/{name}")
            for name in set(self._copied) - set(found):
                _remove(store, f"{self._url}/{name}")
        self._copied = found

    def _files(self) -> dict[str, Mark]:
        found: dict[str, Mark] = {}
        for path in self._scratch.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                facts = path.stat()
                if path.is_file() and path.suffix != ".tmp" and path.name != self._leave:
                    found[path.relative_to(self._scratch).as_posix()] = (facts.st_size, facts.st_mtime_ns)
        return found


def _store() -> AbstractFileSystem:
    return open_store("s3://")[0]


def _text_at(store: AbstractFileSystem, place: str) -> str:
    return store.cat_file(place).decode()


def _fetch_manifest(store: AbstractFileSystem, url: str, folder: Path) -> Manifest | None:
    """The manifest at `url`, written into `folder`; None when there is none or an object is not as it says."""
    with _reaching(url):
        try:
            store.get_file(f"{url}/{MANIFEST}", str(folder / MANIFEST))
            manifest = read_manifest(folder)
        except (FileNotFoundError, ContractError):
            return None
        return manifest if _has_sizes(store, _prefix(url, manifest), manifest) else None


def _beside(url: str, ending: str) -> str:
    parent, name = url.rsplit("/", 1)
    return f"{parent}/.{name}{ending}"


def _prefix(url: str, manifest: Manifest) -> str:
    return f"{url}/{manifest.artifact_id}"


def _has_sizes(store: AbstractFileSystem, prefix: str, manifest: Manifest) -> bool:
    root = prefix.removeprefix("s3://") + "/"
    sizes = {place.removeprefix(root): facts["size"] for place, facts in store.find(prefix, detail=True).items()}
    return all(sizes.get(name) == facts["bytes"] for name, facts in manifest.files.items())


def _is_copy(folder: Path, manifest: Manifest) -> bool:
    if not (folder / MANIFEST).is_file():
        return False
    return read_manifest(folder) == manifest and is_intact(folder, manifest)


def _download(store: AbstractFileSystem, prefix: str, manifest: Manifest, folder: Path) -> None:
    names = sorted(manifest.files)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    if names:
        store.get([f"{prefix}/{name}" for name in names], [str(folder / name) for name in names])


def _remove(store: AbstractFileSystem, place: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        store.rm(place, recursive=True)


@contextlib.contextmanager
def _reaching(url: str) -> Generator[None]:
    try:
        yield
    except (OSError, BotoCoreError, ClientError) as error:
        raise PlatformError(
            f"the object store does not serve {url}",
            expected="a reachable store, a bucket that exists and rights to read and write it",
            found=f"{type(error).__name__}: {error}",
            action=f"check {S3_ENDPOINTS[0]}, the keys (AWS_ACCESS_KEY_ID or the account's identity) and the bucket",
        ) from error
