"""The GPU benchmark at tiny shapes on a CPU: on a machine with a GPU its first run must not be its last."""

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).with_name("bench_gpu.py")


def test_gpu_benchmark_prints_a_line_per_case_from_the_checkout_alone(monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    command = [sys.executable, str(BENCH), "--tiny", "--steps", "2", "--repeats", "1", "--no-compile"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [line for line in shown.splitlines() if line.startswith("| tiny")]
    assert [line.split("|")[1].strip() for line in lines] == ["tiny", "tiny, recomputed", "tiny"]


def test_gpu_benchmark_without_a_gpu_says_so():
    found = subprocess.run([sys.executable, str(BENCH)], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "no GPU here" in found.stderr
