"""The step's process is killed while its RayJob runs; the next one adopts the job. Three real processes, one server."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.platform.conftest import COMPLETE, INITIALIZING, RUNNING, Operator, kubeconfig, start_pod
from tests.platform.toy import toy_stage

from qwenops.platform.kubernetes.log_follower import split
from qwenops.platform.kubernetes.logs import SUBMITTER
from qwenops.recipe.codec import canonical
from qwenops.recipe.placement import RayCluster

STEPS = 6
# Steps that wait for a file of the test's, so that the test knows how far the driver is.
WAITS = {"before": 3, "between": 4}
RUN = f"""
import time
from pathlib import Path
def run(config, *, stage):
    folder = Path(stage.context.events).parents[1]
    for step in range({STEPS}):
        for name, number in {WAITS}.items():
            while step == number and not (folder / name).exists():
                time.sleep(0.02)
        with (folder / "steps").open("a") as steps:
            steps.write(f"{{step}}\\n")
        print("step", step, flush=True)
    (stage.out / "value.txt").write_text(str(config.value))
"""
STEP = "from qwenops.platform.launch.execute import execute; execute('toy.counter', sys.argv[2], {})"
DRIVER = "from qwenops.platform.launch import driver; driver.run(sys.argv[2])"
SAID = re.compile(r"^\[counter driver\] (.*)$", re.MULTILINE)


def start(folder, code, argument, output):
    """A process that has the stage `toy.counter`, as the images do."""
    begin = f"import sys, qwenops; qwenops.__path__.append(sys.argv[1]); {code}"
    return subprocess.Popen(
        [sys.executable, "-c", begin, str(folder / "package"), argument],
        stdout=output,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def until(ready, seconds=600):
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
    return found


class Driving:
    """A script step that starts the job's driver as a process and shows its output as the submitter's log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen | None = None

    def __call__(self, operator: Operator, name: str) -> None:
        token = operator.server.store.objects["rayjobs", name]["spec"]["entrypoint"].split()[3]
        pod = start_pod(operator, name)
        self.process = start(self.folder, DRIVER, token, subprocess.PIPE)
        threading.Thread(target=self._show, args=(operator, name, pod, self.process), daemon=True).start()

    def _show(self, operator, name, pod, process) -> None:
        for line in process.stdout:
            operator.server.store.log(pod, SUBMITTER, line.decode().rstrip("\n"))
        operator.server.store.end_log(pod, SUBMITTER)
        assert process.wait() == 0
        operator.server.store.status(name, **COMPLETE)


@pytest.fixture
def step(tmp_path, monkeypatch, server):
    """Starts the step of the stage; gives its process and what it has said so far. Nothing outlives the test."""
    (tmp_path / "kubeconfig").write_text(kubeconfig(server.url))
    monkeypatch.setenv("QWENOPS_KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("QWENOPS_CLUSTER", canonical(RayCluster(deletion_seconds=5)))
    monkeypatch.setenv("QWENOPS_POD_NAMESPACE", "team")
    monkeypatch.setenv("QWENOPS_RUN_ID", "run-1")
    slice_text = canonical({"node": "counter", "seed": 1, "config": {"value": 4}})
    started = []

    def begin():
        output = tmp_path / f"step-{len(started)}.log"
        with output.open("wb") as stream:
            started.append(start(tmp_path, STEP, slice_text, stream))
        return started[-1], output.read_text

    with toy_stage(tmp_path, monkeypatch, RUN):
        yield begin
        for process in started:
            process.kill()
            process.wait()


def test_next_step_adopts_the_job_and_goes_on_with_its_training_and_its_log(tmp_path, server, step):
    driving = Driving(tmp_path)
    with Operator(server, [INITIALIZING, RUNNING, driving]) as operator:
        first, first_said = step()
        until(lambda: "step 2" in first_said())
        first.kill()
        first.wait()
        assert driving.process.poll() is None
        # A step of the training that nobody watches.
        (tmp_path / "before").touch()
        until(lambda: (tmp_path / "steps").read_text().split()[-1] == "3")
        second, second_said = step()
        until(lambda: "step 3" in second_said())
        (tmp_path / "between").touch()
        assert second.wait(600) == 0, second_said()

    created = [name for _, kind, change, name in server.store.history if (kind, change) == ("rayjobs", "ADDED")]
    assert len(created) == 1
    assert f"adopted RayJob team/{operator.seen[0]}" in second_said()
    assert (tmp_path / "steps").read_text().split() == [str(number) for number in range(STEPS)]
    expected = [f"step {number}" for number in range(STEPS)]
    assert SAID.findall(first_said()) + SAID.findall(second_said()) == expected
    (kept,) = (tmp_path / "store" / "logs").rglob(f"*.{SUBMITTER}.log")
    assert [split(line)[1] for line in kept.read_text().splitlines()] == expected
    (value,) = (tmp_path / "store" / "counter").rglob("value.txt")
    assert value.read_text() == "4"
    assert [kind for kind, _ in server.store.objects if kind == "rayjobs"] == []
