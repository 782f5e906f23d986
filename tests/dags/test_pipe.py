"""A command whose reader leaves, as `qwenops show RUN | head` does, ends without a word; a full disk still says so."""

import json
import os
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "qwenops_pipelines.cli"]
# What a shell reports of a process that SIGPIPE ended.
_UNREAD = 141


@pytest.fixture(params=[3, 3000], ids=["less than a buffer", "more than a pipe holds"])
def run(request, tmp_path):
    """The folder of a run with this many metrics."""
    metrics = {f"metric.{number}": 0.5 for number in range(request.param)}
    stage = {"status": "succeeded", "seconds": 1.0, "metrics": metrics, "warnings": []}
    record = {"run_name": "night", "recipe": "smoke", "status": "succeeded", "seconds": 1.0, "stages": {"sft": stage}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    return tmp_path


def test_command_whose_reader_is_gone_ends_without_a_word(run):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, "show", str(run)], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (_UNREAD, "")


def test_reader_gets_the_lines_it_asked_for(run):
    shell = f"set -o pipefail; {' '.join(COMMAND)} show {run} | head -n 1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert done.stdout == "night  recipe smoke  succeeded  1 s\n"
    assert done.stderr == ""
    assert done.returncode in (0, _UNREAD)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_full_disk_is_still_told(run):
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "show", str(run)], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 5
    assert "No space left on device" in done.stderr
