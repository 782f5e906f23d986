"""What Ray Train loses it continues: a worker, the driver, a node that is drained, a process that is asked to end."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import ray
from tests.platform.trainings import CONFIG, assert_same, run, settled_steps, steps, wait_for_step

from qwenops.errors import ContractError, PlatformError
from qwenops.platform.ray.failures import MOST_REPLACED
from qwenops.training.checkpoint_files import list_checkpoints

ROOT = Path(__file__).parents[2]


@pytest.fixture
def local_ray(monkeypatch):
    monkeypatch.setenv("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "0.2")
    ray.init(num_cpus=3, include_dashboard=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an uninterrupted run of two workers ends with."""
    folder = tmp_path_factory.mktemp("whole")
    ray.init(num_cpus=3, include_dashboard=False, logging_level="ERROR")
    run(folder, 2)
    ray.shutdown()
    return folder


@pytest.mark.integration
def test_killed_worker_is_replaced_and_training_goes_on_from_the_last_checkpoint(tmp_path, local_ray, whole):
    run(tmp_path, 2, kill_at=20)
    assert (tmp_path / "killed").stat().st_size == 2
    assert (steps(tmp_path).count(0), steps(tmp_path).count(18), steps(tmp_path).count(39)) == (1, 2, 1)
    assert_same(tmp_path, whole)


@pytest.mark.integration
def test_workers_that_are_killed_again_and_again_are_the_platforms_fault(tmp_path, local_ray, whole):
    with pytest.raises(PlatformError, match=r"of training (was lost|lost its connection)") as raised:
        run(tmp_path, 2, kill_at=20, kills=MOST_REPLACED + 1)
    assert f"lost {MOST_REPLACED} times at most" in raised.value.expected
    assert steps(tmp_path).count(18) == MOST_REPLACED + 1
    before = steps(tmp_path)
    run(tmp_path, 2)
    assert steps(tmp_path)[len(before)] == 18
    assert_same(tmp_path, whole)


@pytest.mark.integration
def test_fault_of_the_stage_ends_the_training_at_once(tmp_path, local_ray):
    with pytest.raises(ContractError, match="row 3 is broken") as raised:
        run(tmp_path, 2, fail_at=8)
    assert raised.value.found == "half of one"
    assert steps(tmp_path).count(0) == 1


@pytest.mark.integration
def test_lost_driver_is_continued_by_the_next_one(tmp_path, whole):
    code = f"import pathlib, tests.platform.trainings as t; t.run(pathlib.Path({str(tmp_path)!r}), 2, pause=0.1)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, *sys.path)))}
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment)
    try:
        wait_for_step(tmp_path, 15)
    finally:
        driver.kill()
        driver.wait()
    before = settled_steps(tmp_path)
    try:
        run(tmp_path, 2)
    finally:
        ray.shutdown()
    resumed_at = steps(tmp_path)[len(before)]
    assert 0 < resumed_at <= before[-1]
    assert resumed_at % CONFIG.checkpoint_every_steps == 0
    assert_same(tmp_path, whole)


@pytest.mark.integration
def test_drained_node_makes_the_workers_save_and_go_on(tmp_path, local_ray, whole):
    def drain():
        wait_for_step(tmp_path, 8)
        node, address = ray.nodes()[0]["NodeID"], ray.get_runtime_context().gcs_address
        command = [Path(sys.executable).with_name("ray"), "drain-node", "--address", address, "--node-id", node]
        reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "test"]
        subprocess.run([*command, *reason, "--deadline-remaining-seconds", "600"], check=True)

    drained = threading.Thread(target=drain)
    drained.start()
    run(tmp_path, 2, pause=0.4)
    drained.join()
    saved = {int(folder.name.split("-")[1]) for folder in list_checkpoints(tmp_path / "state")}
    assert len([step for step in saved if step % CONFIG.checkpoint_every_steps]) == 1
    assert steps(tmp_path) == list(range(CONFIG.steps))
    assert_same(tmp_path, whole)


def test_process_that_is_asked_to_end_saves_first(tmp_path):
    (tmp_path / "asked").mkdir()

    def ask():
        wait_for_step(tmp_path / "asked", 8)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(PlatformError, match="asked to end while it trained"):
        run(tmp_path / "asked", 0, pause=0.05)
    asking.join()
    stopped = steps(tmp_path / "asked")[-1]
    saved = {folder.name for folder in list_checkpoints(tmp_path / "asked" / "state")}
    assert f"step-{stopped + 1:09}" in saved
    run(tmp_path / "asked", 0)
    assert steps(tmp_path / "asked") == list(range(CONFIG.steps))
    run(tmp_path / "whole", 0)
    assert_same(tmp_path / "asked", tmp_path / "whole")
