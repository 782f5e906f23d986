"""A worker's error is the stage's own or the platform's, by what Ray Train and torch themselves say of a killed one."""

import subprocess
import sys

import pytest
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from qwenops.errors import ContractError, PlatformError, StageError
from qwenops.platform.ray.failures import own_fault, platform_fault

LOST = WorkerHealthCheckFailedError("no answer", RuntimeError("The actor died unexpectedly before finishing this task"))
OURS = ContractError("row 3 is broken", expected="whole rows", found="half of one")
# As of torch 2.13; the last two from its ProcessGroupNCCL and its TCPStore.
BROKEN = [
    "[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:23456",
    "NCCL error in: ProcessGroupNCCL.cpp:2365, remote process exited or there was a network error",
    "Broken pipe",
]
_SURVIVOR = """
import os, signal, sys, torch, torch.distributed as dist
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
dist.all_reduce(torch.ones(1))
if rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
try:
    for _ in range(9):
        dist.all_reduce(torch.ones(1))
except BaseException as error:
    print(type(error).__mro__[-4].__name__, str(error))
"""


@pytest.mark.parametrize("words", BROKEN)
def test_broken_connection_is_no_fault_of_the_stage(words):
    failures = {0: RuntimeError(words)}
    assert own_fault(failures, "sft") is None
    assert "worker 0 of sft lost its connection" in str(platform_fault(failures, "sft"))


def test_survivor_of_a_killed_worker_names_the_connection(tmp_path):
    """The real error of the real library."""
    command = [sys.executable, "-c", _SURVIVOR]
    pair = [subprocess.Popen([*command, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE) for rank in (0, 1)]
    said = [process.communicate(timeout=600)[0].decode() for process in pair]
    assert said[1] == ""
    assert said[0].strip()
    assert own_fault({0: RuntimeError(said[0])}, "sft") is None


def test_lost_worker_is_the_cause_whatever_the_survivors_say():
    failures = {0: RuntimeError(BROKEN[0]), 1: LOST, 2: ValueError("half a message")}
    assert own_fault(failures, "sft") is None
    assert "worker 1 of sft was lost" in str(platform_fault(failures, "sft"))


@pytest.mark.parametrize(
    ("failures", "family", "words"),
    [
        ({0: RuntimeError(BROKEN[0]), 1: OURS}, ContractError, "row 3 is broken"),
        ({0: OURS, 1: LOST}, ContractError, "row 3 is broken"),
        ({0: ValueError("no such size")}, StageError, "worker 0 of sft failed"),
        ({0: FileNotFoundError(2, "No such file", "rows.bin")}, StageError, "rows.bin"),
        ({0: RuntimeError(BROKEN[0]), 3: RuntimeError("CUDA out of memory")}, StageError, "worker 3 of sft failed"),
    ],
)
def test_fault_of_the_stage_is_told_from_what_follows_it(failures, family, words):
    found = own_fault(failures, "sft")
    assert type(found) is family
    assert words in str(found)


@pytest.mark.parametrize("error", [PlatformError("the bucket does not answer", found="503"), OSError("no space left")])
def test_platform_error_of_a_worker_is_retried_and_kept(error):
    assert own_fault({0: error}, "sft") is None
    assert ("503" if isinstance(error, PlatformError) else "no space left") in str(platform_fault({0: error}, "sft"))


def test_full_disk_is_not_called_a_lost_connection():
    assert "worker 0 of sft met a fault of its machine" in str(platform_fault({0: OSError(28, "no space left")}, "sft"))
    assert "worker 0 of sft lost its connection" in str(platform_fault({0: ConnectionResetError(104, "reset")}, "sft"))
