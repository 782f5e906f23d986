"""A stage's process or Ray worker killed in the middle, and a full disk: nothing partial, and a rerun is whole."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.data.faults import document_rows, texts, write_documents

from qwenops.contracts.manifest import MANIFEST, Manifest, digest_files, is_intact, read_manifest, write_manifest
from qwenops.data.tokenizer.bpe import save, train
from qwenops.errors import PlatformError

_EXECUTE = (
    "import sys; from qwenops.platform.launch import execute; "
    "execute.execute(sys.argv[1], sys.argv[2], eval(sys.argv[3]))"
)
_SLICES = {
    "collect": {"sources": [{"kind": "python", "name": "code", "packages": ["stdlib"]}], "part_bytes": 1_000_000},
    "tokenizer": {"vocabulary": 2000, "sample_bytes": 20_000_000},
    "dedup": {"planted_documents": 20},
    "mixture": {
        "proxies": 6, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "context_length_tokens": 32,
        "sample_bytes": 20_000, "measured_rows": 4, "simulated": 500, "averaged": 10, "planned_tokens": 20_000,
        "training": {"steps": 40, "batch_tokens": 256, "learning_rate": 1e-2, "final_learning_rate": 1e-3,
                     "warmup_steps": 1, "precision": "fp32"},
    },
}  # fmt: skip
_READS = {"collect": (), "tokenizer": ("documents",), "dedup": ("documents",), "mixture": ("documents", "tokenizer")}


class Run:
    """Runs stages in processes of their own below one folder, on `workers` Ray workers or in the process itself."""

    def __init__(self, folder: Path, artifacts: Path, workers: int = 0) -> None:
        self.folder, self.artifacts = folder, artifacts
        self.environment = os.environ | {f"QWENOPS_{name.upper()}": str(folder / name) for name in ("events", "cache")}
        # Sums of floats depend on the threads that share them; a Ray worker has one.
        self.environment |= {"QWENOPS_STORE": str(folder / "store"), "OMP_NUM_THREADS": "1"}
        self.environment["QWENOPS_NUM_WORKERS"] = str(workers)

    def start(self, stage: str) -> subprocess.Popen[str]:
        envelope = {"node": stage, "seed": 7, "config": _SLICES[stage]}
        inputs = {name: str(self.artifacts / name) for name in _READS[stage]}
        command = [sys.executable, "-c", _EXECUTE, f"data.{stage}", json.dumps(envelope), json.dumps(inputs)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self.environment, stdout=pipe, stderr=pipe, text=True)

    def finish(self, stage: str) -> str:
        process = self.start(stage)
        errors = process.communicate(timeout=150)[1]
        return errors if process.returncode else ""

    def published(self, stage: str) -> list[Path]:
        return [path.parent for path in (self.folder / "store" / stage).glob(f"[!.]*/{MANIFEST}")]

    def is_in_the_middle(self, stage: str) -> bool:
        folder = self.folder / "store" / stage
        if stage == "collect":
            return any(path.is_file() for path in folder.glob(".*.work/**/*"))
        if stage == "mixture":
            return any(folder.glob(".*.scratch/proxy-*.json"))
        begun = self.folder / "events" / f"{stage}.json"
        return begun.exists() and "run_started" in begun.read_text()


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Documents and a tokenizer, as earlier stages publish them."""
    folder = tmp_path_factory.mktemp("artifacts")
    write_documents(folder / "documents", document_rows(400), 4)
    save(train(texts(40), 400, 2), folder / "tokenizer")
    for name in ("documents", "tokenizer"):
        manifest = Manifest(
            node=name, fingerprint="f", artifact_id=name, parents={}, files=digest_files(folder / name), records=400,
            counts={}, metrics={}, warnings=(), seconds=0.0, config={}, code_version="", created_at="",
        )  # fmt: skip
        write_manifest(folder / name, manifest)
    return folder


def wait_for_the_middle(run: Run, stage: str, process: subprocess.Popen[str]) -> None:
    while not run.is_in_the_middle(stage):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


@pytest.mark.parametrize("stage", ["collect", "tokenizer", "mixture"])
def test_killed_stage_publishes_nothing_and_its_rerun_is_whole(tmp_path, artifacts, stage):
    run, other = (Run(tmp_path / name, artifacts) for name in ("killed", "whole"))
    process = run.start(stage)
    wait_for_the_middle(run, stage, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert run.published(stage) == []
    assert run.finish(stage) == other.finish(stage) == ""
    (again,), (whole,) = run.published(stage), other.published(stage)
    assert is_intact(again, read_manifest(again))
    assert read_manifest(again).digest == read_manifest(whole).digest
    assert read_manifest(again).counts == read_manifest(whole).counts


@pytest.mark.integration
def test_mixture_whose_ray_worker_is_killed_is_that_of_one_process(tmp_path, artifacts):
    run, other = Run(tmp_path / "killed", artifacts, workers=2), Run(tmp_path / "whole", artifacts)
    process = run.start("mixture")
    wait_for_the_middle(run, "mixture", process)
    below = psutil.Process(process.pid).children(recursive=True)
    at_work = [child for child in below if child.cmdline()[:1] == ["ray::_do"]]
    at_work[0].kill()
    errors = process.communicate(timeout=150)[1]
    assert process.returncode == 0, errors
    assert other.finish("mixture") == ""
    (again,), (whole,) = run.published("mixture"), other.published("mixture")
    assert read_manifest(again).digest == read_manifest(whole).digest


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
def test_full_disk_ends_with_one_error_and_a_rerun_with_space_is_whole(small_disk, artifacts, stage):
    run = Run(small_disk, artifacts)
    errors = run.finish(stage)
    assert PlatformError.__name__ in errors and "No space left" in errors and "free some space" in errors
    assert run.published(stage) == []
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    assert run.finish(stage) == ""
    (folder,) = run.published(stage)
    manifest = read_manifest(folder)
    assert is_intact(folder, manifest)
    assert manifest.counts["kept"] + sum(manifest.counts["dropped"].values()) == manifest.counts["read"] > 0
