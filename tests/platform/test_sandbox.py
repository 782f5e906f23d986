"""Programs nobody has read: right, wrong, endless, greedy and malicious ones."""

import time
from pathlib import Path

import pytest

from qwenops.platform.sandbox import run_python


def test_a_right_program_passes_and_its_output_is_kept():
    outcome = run_python("import math\nprint(math.floor(2.5))\nassert 1 + 1 == 2")
    assert outcome.passed
    assert outcome.stdout == "2\n"


@pytest.mark.parametrize("program", ["assert False", "def f(:", "import os; os._exit(0)", "raise SystemExit", "1/0"])
def test_a_program_that_does_not_reach_its_end_fails(program):
    assert run_python(program).status == "failed"


def test_an_endless_program_is_killed_in_time():
    began = time.monotonic()
    assert run_python("while True: pass", timeout_seconds=0.5).status == "timeout"
    assert time.monotonic() - began < 5


def test_a_greedy_program_meets_its_limits():
    assert "MemoryError" in run_python("x = bytearray(2 * 10**9)", memory_mb=256).stderr
    assert len(run_python("print('x' * 10**7)").stdout) <= 64 * 1024


@pytest.mark.parametrize(
    "program",
    [
        "import socket; socket.create_connection(('127.0.0.1', 1))",
        "import os; os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import ctypes; ctypes.CDLL(None)",
        "import os; os.kill(1, 0)",
    ],
)
def test_a_malicious_program_is_refused(program):
    outcome = run_python(program)
    assert outcome.status == "failed"
    assert "the sandbox refuses" in outcome.stderr


def test_a_program_can_write_only_in_its_own_folder(tmp_path: Path):
    assert run_python("open('mine', 'w').write('x'); assert open('mine').read() == 'x'").passed
    target = tmp_path / "yours"
    assert not run_python(f"open({str(target)!r}, 'w')").passed
    assert not target.exists()


def test_the_environment_of_this_process_is_not_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    assert "secret" not in run_python("import os; print(os.environ)").stdout
