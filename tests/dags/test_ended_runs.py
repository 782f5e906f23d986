"""Runs that do not reach their end: refused, failed, or stopped in the middle and continued."""

import fcntl
import json
import resource
import signal
import subprocess
import sys
import time

import pytest
from tests.dags.conftest import qwenops, record_of

# Little text in several parts: what a run that is stopped and continued does to its outputs, not to its figures.
FEW = [{"kind": "python", "name": "code", "packages": ["stdlib"], "cap_bytes": 300_000}]


@pytest.fixture(scope="module")
def continued(tmp_path_factory):
    """One folder's runs: killed, then asked to end by Ctrl-C, each in the middle, then left alone.

    Signal to the outputs that lay there after it, as folder to whether it was whole; the record at the end.
    """
    out = tmp_path_factory.mktemp("runs") / "run"
    said = out.with_name("said.txt")
    options = ["run", "smoke", "--out", str(out), "--until", "ingest", "--set", f"collect.sources={json.dumps(FEW)}"]
    middles = {signal.SIGKILL: "stages/collect/[!.]*/manifest.json", signal.SIGINT: "stages/ingest/.*"}
    left = {}
    for sign, middle in middles.items():
        command = [sys.executable, "-m", "qwenops_pipelines.cli", *options]
        # Into a file: of a killed run's processes one may hold on to a pipe for a while.
        with said.open("w") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        while not list(out.glob(middle)):
            assert process.poll() is None, said.read_text()
            time.sleep(0.05)
        process.send_signal(sign)
        process.wait()
        left[sign] = {path: (path / "manifest.json").exists() for path in out.glob("stages/[!.]*/[!.]*")}
    result = qwenops(*options)
    assert result.returncode == 0, result.stderr
    return left, record_of(out)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_stopped_run_leaves_whole_outputs_and_continues(continued, sign):
    left, record = continued
    assert all(left[sign].values())
    assert "collect" in {path.parent.name for path in left[sign]}
    # A stage that was about to publish may have done so before the run ended.
    states = {name: stage["status"] for name, stage in record["stages"].items()}
    assert states.pop("collect") == "skipped" and states["ingest"] in ("succeeded", "skipped")


def test_broken_pages_stop_the_run_before_any_training(tmp_path):
    source = tmp_path / "pages"
    source.mkdir()
    (source / "a.txt").write_bytes(b"\xff\xfe" + b"\x00" * 50)
    sources = json.dumps([{"kind": "folder", "name": "broken", "path": str(source)}])
    out = tmp_path / "run"
    result = qwenops("run", "smoke", "--out", out, "--set", f"collect.sources={sources}")
    assert result.returncode == 3, result.stdout + result.stderr
    assert "ContractError" in result.stderr
    assert "Traceback" not in result.stderr
    record = record_of(out)
    assert record["status"] == "failed"
    assert "pretrain" not in record["stages"]
    assert "ContractError" in (out / "report.html").read_text()


def test_second_run_into_a_busy_folder_is_refused(typed, tmp_path):
    with (tmp_path / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        result = typed("run", "smoke", "--out", tmp_path)
    assert result.returncode == 5
    assert "another run is writing" in result.stderr


def test_output_folder_that_cannot_be_written_is_one_clear_error(typed, tmp_path):
    (tmp_path / "file").write_text("")
    result = typed("run", "smoke", "--out", tmp_path / "file" / "run")
    assert result.returncode == 5
    assert "cannot write" in result.stderr
    assert "Traceback" not in result.stderr


def test_disk_that_takes_nothing_more_is_one_clear_error(tmp_path):
    command = [sys.executable, "-m", "qwenops_pipelines.cli", "compile", "smoke", "--placement", "laptop", "-o"]

    def no_file_may_grow():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    result = subprocess.run(
        [*command, tmp_path / "p.yaml"], capture_output=True, text=True, check=False, preexec_fn=no_file_may_grow
    )
    assert result.returncode == 5
    assert "free some space" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "p.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("run", "tinny"), "tiny"),
        (("run", "smoke", "--set", "pretrain.stepz=3"), "pretrain.stepz"),
        (("run", "smoke", "--until", "tokenz"), "tokens"),
        (("run", "smoke", "--placement", "moon"), "laptop"),
        (("run", "smoke", "--placement", "kind"), "qwenops submit"),
        (("show", "/nowhere"), "run record"),
    ],
)
def test_wrong_command_line_ends_with_status_2_and_one_message(typed, arguments, word):
    result = typed(*arguments)
    assert result.returncode == 2
    assert word in result.stderr
    assert "Traceback" not in result.stderr
