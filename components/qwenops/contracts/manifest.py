"""The manifest written beside every artifact: who made it, from what, how much of it there is.

A manifest is written last, inside the directory that is then published by one rename, so a directory
with a manifest is complete. `artifact_id` is unique to each production: a consumer's fingerprint is built
from the ids of what it read, so an output that was made again has its consumers made again too, exactly as
a Kubeflow back end does with artifact URIs.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qwenops.contracts.json_text import replace_not_finite
from qwenops.errors import ContractError

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Manifest:
    """What made an artifact and what it holds.

    Attributes:
        node: Name of the DAG node (`sft_seed`), equal to the recipe field.
        fingerprint: SHA-256 of causes, config slice and parents; equal fingerprints mean reusable work.
        artifact_id: Unique id of this production.
        parents: Input name to that input's `artifact_id`.
        files: Relative path to {"sha256": hex, "bytes": int}.
        records: Number of records of the main output (documents, tokens, conversations, parameters).
        counts: `read`, `kept` and `dropped` by reason word; `kept + sum(dropped) == read`.
        metrics: Metric name (see `contracts.metrics`) to value.
        warnings: Sentences for whoever reads the report.
        seconds: Wall time of the stage's `run`.
        config: The config slice as plain data.
        code_version: Version of the package and digest of the causes.
        created_at: UTC, ISO 8601.
        inputs: Input name to the address it was read from.
        causes: What else the output follows from: file of the package, library or thing outside to digest or version.
    """

    node: str
    fingerprint: str
    artifact_id: str
    parents: Mapping[str, str]
    files: Mapping[str, Mapping[str, Any]]
    records: int
    counts: Mapping[str, Any]
    metrics: Mapping[str, float]
    warnings: tuple[str, ...]
    seconds: float
    config: Mapping[str, Any]
    code_version: str
    created_at: str
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])
    causes: Mapping[str, str] = field(default_factory=dict[str, str])
    version: int = MANIFEST_VERSION

    @property
    def digest(self) -> str:
        """SHA-256 over the files' digests: equal for equal contents, wherever they lie."""
        lines = [f"{name}\0{self.files[name]['sha256']}" for name in sorted(self.files)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `manifest` into `directory`; the last file to be written there."""
    plain = replace_not_finite(asdict(manifest))
    text = json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (directory / MANIFEST).write_text(text, encoding="utf-8")


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest of a published artifact.

    Raises:
        ContractError: there is none, it is not readable, or it has another version.
    """
    path = directory / MANIFEST
    try:
        plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ContractError(
            f"no readable manifest at {path}",
            expected="an artifact published by a stage",
            found=error,
            action="run the stage that makes it again",
        ) from None
    if plain.get("version") != MANIFEST_VERSION:
        raise ContractError(
            f"manifest of another version at {path}",
            expected=str(MANIFEST_VERSION),
            found=plain.get("version"),
            action="run the stage that makes it again",
        )
    plain["warnings"] = tuple(plain["warnings"])
    return Manifest(**plain)


def digest_files(directory: Path) -> dict[str, dict[str, Any]]:
    """Return relative path to SHA-256 and size of every file under `directory`, the manifest apart."""
    paths = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {str(p.relative_to(directory)): {"sha256": file_digest(p), "bytes": p.stat().st_size} for p in paths}


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def is_intact(directory: Path, manifest: Manifest) -> bool:
    """Whether every file the manifest names still exists with the digest it had."""
    for name, facts in manifest.files.items():
        path = directory / name
        if not path.is_file() or path.stat().st_size != facts["bytes"] or file_digest(path) != facts["sha256"]:
            return False
    return True
