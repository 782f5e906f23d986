"""Ray on a busy machine."""

import subprocess

import pytest

from qwenops.platform.ray.start import retry_start


def _starts(*ends):
    """What Ray does on a busy machine: it leaves its processes behind and gives up; "" is a node that runs."""
    left, processes = list(ends), []

    def start():
        processes.append(subprocess.Popen(["sleep", "60"]))
        if end := left.pop(0):
            raise RuntimeError(end)

    return start, processes


def test_node_that_took_too_long_is_started_again_and_leaves_nothing_behind():
    late = "The current node timed out during startup."
    start, processes = _starts(late, late, "")
    retry_start(start)
    first, second, third = processes
    assert (first.wait(60), second.wait(60), third.poll()) == (-9, -9, None)
    third.kill()
    third.wait()


@pytest.mark.parametrize(("ends", "starts"), [(("timed out",) * 9, 3), (("no space left",), 1)])
def test_node_that_never_comes_and_other_errors_end_the_run(ends, starts):
    start, processes = _starts(*ends)
    with pytest.raises(RuntimeError, match=ends[0]):
        retry_start(start)
    assert len(processes) == starts
    for process in processes:
        process.kill()
        process.wait()
