"""The other arm of a comparison: in a fork with processors of its own where there are some, in turn elsewhere."""

import multiprocessing
import os
import signal
import time

import pytest

from qwenops.errors import ContractError, QwenOpsError, StageError
from qwenops.platform.context import RunContext
from qwenops.platform.stage.beside import beside
from qwenops.platform.stage.events import Events
from qwenops.platform.stage.handle import Stage

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")


def _stage(folder, slots=2):
    context = RunContext(str(folder / "store"), str(folder / "events"), str(folder / "cache"), slots=slots)
    for name in ("events", "out", "scratch"):
        (folder / name).mkdir(exist_ok=True)
    return Stage("sft", 0, context, folder / "out", folder / "scratch")


def _of_lane(call, *arguments):
    """What `call` returns in a process that is held to one processor, as a stage's is; its error is raised here."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def held():
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        try:
            theirs.send((call(*arguments), None))
        except QwenOpsError as error:
            theirs.send((None, error))

    process = context.Process(target=held)
    process.start()
    found, error = ours.recv()
    process.join()
    if error:
        raise error
    return found


def _two_arms(stage, work):
    with beside(stage, work) as other:
        own = os.getpid(), sorted(os.sched_getaffinity(0))
        return own, other(), stage.warnings


def test_other_arm_has_a_process_and_processors_of_its_own_and_its_warnings_count(tmp_path):
    stage = _stage(tmp_path)

    def work():
        (tmp_path / "began").touch()
        stage.warn("from the other arm")
        stage.curve("loss.control", 0, 2.5)
        return os.getpid(), sorted(os.sched_getaffinity(0))

    def arms():
        with beside(stage, work) as other:
            while not (tmp_path / "began").exists():
                time.sleep(0.05)
            return (os.getpid(), sorted(os.sched_getaffinity(0))), other(), stage.warnings

    (pid, processors), (other_pid, others), warnings = _of_lane(arms)
    assert pid != other_pid
    assert others and not set(processors) & set(others)
    assert warnings == ["from the other arm"]
    assert "loss.control" in (tmp_path / "scratch/curves.jsonl").read_text()


def test_other_arm_waits_while_another_stage_computes_and_then_takes_the_place_of_the_first(tmp_path):
    stage = _stage(tmp_path)
    Events(tmp_path / "events", "long_context").write(status="running")

    def work():
        return (tmp_path / "first_done").exists(), sorted(os.sched_getaffinity(0))

    def arms():
        with beside(stage, work) as other:
            (tmp_path / "first_done").touch()
            return sorted(os.sched_getaffinity(0)), other()

    processors, (after_the_first, others) = _of_lane(arms)
    assert after_the_first
    assert others == processors


@pytest.mark.parametrize(
    ("raised", "family", "said"),
    [
        (ContractError("no pairs", action="look at rank"), ContractError, "no pairs\n  what to do: look at rank"),
        (ZeroDivisionError("by zero"), StageError, "ZeroDivisionError: by zero"),
    ],
)
def test_error_of_the_other_arm_is_the_stage_s_own(tmp_path, raised, family, said):
    def work():
        raise raised

    with pytest.raises(family, match=said):
        _of_lane(_two_arms, _stage(tmp_path), work)


def test_killed_arm_is_said_and_not_waited_for(tmp_path):
    with pytest.raises(StageError, match="died without a result"):
        _of_lane(_two_arms, _stage(tmp_path), lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_other_arm_ends_with_a_first_one_that_fails(tmp_path):
    def work():
        (tmp_path / "pid").write_text(str(os.getpid()))
        signal.pause()

    def fails():
        with beside(_stage(tmp_path), work):
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
                time.sleep(0.05)
            raise StageError("the first arm failed")

    with pytest.raises(StageError, match="the first arm failed"):
        _of_lane(fails)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("held", [True, False], ids=["one slot", "all processors"])
def test_without_free_processors_the_arms_follow_each_other_in_one_process(tmp_path, held):
    stage = _stage(tmp_path, slots=1 if held else 2)
    found = _of_lane(_two_arms, stage, os.getpid) if held else _two_arms(stage, os.getpid)
    assert found[0][0] == found[1]
