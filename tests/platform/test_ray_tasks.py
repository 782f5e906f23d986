"""Independent pieces of work: the same results in this process, in forks and as Ray tasks, a killed one included."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import ray

from qwenops.errors import StageError
from qwenops.platform.context import RunContext
from qwenops.platform.ray.tasks import run_tasks


@pytest.fixture(scope="module", autouse=True)
def _one_ray() -> Iterator[None]:
    yield
    ray.shutdown()


def _square(item: int, *, fault: str = "", mark: Path | None = None) -> tuple[int, int]:
    if item == 2 and fault:
        raise StageError("bad item", expected="good", found=fault, action="mend")
    if item == 1 and mark is not None and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item * item, os.getpid()


@pytest.mark.parametrize(("num_workers", "slots"), [(0, 1), (0, 2), (2, 1)], ids=["here", "forks", "ray"])
def test_results_come_with_the_places_of_their_items(tmp_path, num_workers, slots):
    context = RunContext(str(tmp_path), str(tmp_path), str(tmp_path), num_workers=num_workers, slots=slots)
    results = dict(run_tasks(context, partial(_square, fault=""), [3, 1, 2]))
    assert {place: result for place, (result, _) in results.items()} == {0: 9, 1: 1, 2: 4}
    assert (os.getpid() in {pid for _, pid in results.values()}) == (num_workers == 0 and slots == 1)


@pytest.mark.parametrize(("num_workers", "slots"), [(0, 2), (2, 1)], ids=["forks", "ray"])
def test_task_of_a_killed_worker_is_done_by_another(tmp_path, num_workers, slots):
    context = RunContext(str(tmp_path), str(tmp_path), str(tmp_path), num_workers=num_workers, slots=slots)
    found = dict(run_tasks(context, partial(_square, mark=tmp_path / "mark"), [0, 1]))
    assert (tmp_path / "mark").exists()
    assert [found[place][0] for place in range(2)] == [0, 1]
    assert os.getpid() not in {pid for _, pid in found.values()}


@pytest.mark.parametrize(("num_workers", "slots"), [(0, 2), (2, 1)], ids=["forks", "ray"])
def test_error_of_a_task_keeps_its_family(tmp_path, num_workers, slots):
    context = RunContext(str(tmp_path), str(tmp_path), str(tmp_path), num_workers=num_workers, slots=slots)
    with pytest.raises(StageError, match="bad item"):
        list(run_tasks(context, partial(_square, fault="two"), [0, 2]))
