"""A stage's process or Ray worker killed in the middle, and a full disk: nothing partial, and a rerun is whole."""

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import pytest
from tests.data.faults import document_rows, texts, write_documents

from qwenops.contracts.manifest import MANIFEST, Manifest, digest_files, is_intact, read_manifest, write_manifest
from qwenops.data.tokenizer.bpe import save, train
from qwenops.errors import PlatformError
from qwenops.platform.launch.execute import execute
from qwenops.recipe.codec import canonical

# Every stage has a process of its own, forked from one that has imported what they need and nothing else.
_MODULES = [f"qwenops.data.{stage}.run" for stage in ("collect", "tokenizer", "dedup", "mixture")]
_SLICES = {
    "collect": {"sources": [{"kind": "python", "name": "code", "packages": ["stdlib"], "cap_bytes": 3_000_000}],
                "part_bytes": 500_000},
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


def _execute(
    environment: Mapping[str, str], errors: Path, stage: str, envelope: Mapping[str, object], inputs: Mapping[str, Path]
) -> None:
    os.environ.update(environment)
    with errors.open("w") as stream:
        os.dup2(stream.fileno(), 2)
    execute(f"data.{stage}", canonical(envelope), inputs)


class Run:
    """Runs stages in processes of their own below one folder, on `workers` Ray workers or in the process itself."""

    def __init__(self, folder: Path, artifacts: Path, workers: int = 0) -> None:
        self.folder, self.artifacts = folder, artifacts
        self.environment = {f"QWENOPS_{name.upper()}": str(folder / name) for name in ("events", "cache", "store")}
        self.environment["QWENOPS_NUM_WORKERS"] = str(workers)
        self.errors = artifacts.parent / f"{folder.parent.name}-{folder.name}.txt"

    def start(self, stage: str) -> BaseProcess:
        inputs = {name: self.artifacts / name for name in _READS[stage]}
        envelope = {"node": stage, "seed": 7, "config": _SLICES[stage]}
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=_execute, args=(self.environment, self.errors, stage, envelope, inputs))
        process.start()
        return process

    def finish(self, stage: str) -> str:
        """What it said where it failed."""
        return self.end_of(self.start(stage))

    def end_of(self, process: BaseProcess) -> str:
        process.join()
        return self.errors.read_text() if process.exitcode else ""

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


@pytest.fixture(scope="module", autouse=True)
def warm_process():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_MODULES)
    with pytest.MonkeyPatch.context() as patch:
        # Sums of floats depend on the threads that share them; a Ray worker has one.
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()
        yield


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


def wait_for_the_middle(run: Run, stage: str, process: BaseProcess) -> None:
    while not run.is_in_the_middle(stage):
        assert process.is_alive(), run.end_of(process)
        time.sleep(0.01)


@pytest.mark.parametrize("stage", ["collect", "tokenizer", "mixture"])
def test_killed_stage_publishes_nothing_and_its_rerun_is_whole(tmp_path, artifacts, stage):
    run, other = (Run(tmp_path / name, artifacts) for name in ("killed", "whole"))
    process = run.start(stage)
    wait_for_the_middle(run, stage, process)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
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
    assert run.end_of(process) == ""
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
