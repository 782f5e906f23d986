"""A stage's own process killed in the middle, and a full disk: nothing partial is published, a rerun is whole."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.data.faults import document_rows, write_documents

from qwenops.contracts.manifest import MANIFEST, Manifest, digest_files, is_intact, read_manifest, write_manifest
from qwenops.errors import PlatformError

_EXECUTE = (
    "import sys; from qwenops.platform.stage import execute; execute(sys.argv[1], sys.argv[2], eval(sys.argv[3]))"
)
_SLICES = {
    "collect": {"sources": [{"kind": "python", "name": "code", "packages": ["stdlib"]}], "part_bytes": 1_000_000},
    "tokenizer": {"vocabulary": 2000, "sample_bytes": 20_000_000},
    "dedup": {"planted_documents": 20},
}


class Run:
    """Runs stages in processes of their own below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {f"QWENOPS_{name.upper()}": str(folder / name) for name in ("events", "cache")}
        self.environment["QWENOPS_STORE"] = str(folder / "store")

    def start(self, stage: str, inputs: dict[str, str]) -> subprocess.Popen[str]:
        envelope = {"node": stage, "seed": 7, "config": _SLICES[stage]}
        command = [sys.executable, "-c", _EXECUTE, f"data.{stage}", json.dumps(envelope), json.dumps(inputs)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self.environment, stdout=pipe, stderr=pipe, text=True)

    def finish(self, stage: str, inputs: dict[str, str]) -> str:
        process = self.start(stage, inputs)
        errors = process.communicate(timeout=50)[1]
        return errors if process.returncode else ""

    def published(self, stage: str) -> list[Path]:
        return [path.parent for path in (self.folder / "store" / stage).glob(f"[!.]*/{MANIFEST}")]

    def work(self, stage: str) -> list[Path]:
        return [path for path in (self.folder / "store" / stage).glob(".*.work/**/*") if path.is_file()]


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    folder = write_documents(tmp_path_factory.mktemp("documents"), document_rows(400), 4)
    manifest = Manifest(
        node="decontaminate", fingerprint="f", artifact_id="a", parents={}, files=digest_files(folder), records=400,
        counts={}, metrics={}, warnings=(), seconds=0.0, config={}, code_version="", created_at="",
    )  # fmt: skip
    write_manifest(folder, manifest)
    return folder


@pytest.mark.parametrize("stage", ["collect", "tokenizer"])
def test_killed_stage_publishes_nothing_and_its_rerun_is_whole(tmp_path, documents, stage):
    inputs = {} if stage == "collect" else {"documents": str(documents)}
    run, other = Run(tmp_path / "killed"), Run(tmp_path / "whole")
    process = run.start(stage, inputs)
    begun = run.folder / "events" / f"{stage}.json"
    while not (run.work(stage) if stage == "collect" else begun.exists() and "run_started" in begun.read_text()):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert run.published(stage) == []
    assert run.finish(stage, inputs) == other.finish(stage, inputs) == ""
    (again,), (whole,) = run.published(stage), other.published(stage)
    assert is_intact(again, read_manifest(again))
    assert read_manifest(again).digest == read_manifest(whole).digest
    assert read_manifest(again).counts == read_manifest(whole).counts


@pytest.fixture
def small_disk(tmp_path):
    """A disk of half a megabyte, which root can mount."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"no right to mount a small disk: {mount.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("stage", ["collect", "dedup"])
def test_full_disk_ends_with_one_error_and_a_rerun_with_space_is_whole(small_disk, documents, stage):
    inputs = {} if stage == "collect" else {"documents": str(documents)}
    run = Run(small_disk)
    errors = run.finish(stage, inputs)
    assert PlatformError.__name__ in errors and "No space left" in errors and "free some space" in errors
    assert run.published(stage) == []
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    assert run.finish(stage, inputs) == ""
    (folder,) = run.published(stage)
    manifest = read_manifest(folder)
    assert is_intact(folder, manifest)
    assert manifest.counts["kept"] + sum(manifest.counts["dropped"].values()) == manifest.counts["read"] > 0
