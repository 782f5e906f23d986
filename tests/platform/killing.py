"""Run a stage in a process of its own that dies without a word after one point of one curve."""

import json
import multiprocessing
import os
import signal

from qwenops.platform.stage import handle


def killed_after(name, step, run, *arguments):
    """Call `run(*arguments)` in a fork that is killed when the point (`name`, `step`) has been drawn."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(name, step, run, arguments))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"{name} never came to step {step}"


def steps_of(folder):
    """Curve name to the steps of its points, in the order of the file."""
    found = {}
    for line in (folder / "curves.jsonl").read_text().splitlines():
        point = json.loads(line)
        found.setdefault(point["name"], []).append(point["step"])
    return found


def _run(name, step, run, arguments):
    draw = handle.add_point

    def add_point(scratch, drawn, at, value):
        draw(scratch, drawn, at, value)
        if (drawn, at) == (name, step):
            os.kill(os.getpid(), signal.SIGKILL)

    handle.add_point = add_point
    run(*arguments)
