"""Copies of the finished run of `smoke`, so that a door costs the stages behind it and no others."""

import json
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def started(smoke_run, tmp_path_factory):
    """Folder of a finished run that a module may go on with."""
    out = tmp_path_factory.mktemp("runs") / "door"
    shutil.copytree(smoke_run, out, symlinks=True, ignore=shutil.ignore_patterns("kfp", ".lock"))
    return out


def stages_of(out):
    return json.loads((out / "run.json").read_text())["stages"]


def output(out, stage):
    return Path(stages_of(out)[stage]["outputs"]["output"]["path"])


def settings(**fields):
    """`--set` arguments; `__` stands for the dots of a path."""
    return [
        word
        for path, value in fields.items()
        for word in ("--set", f"{path.replace('__', '.')}={value if isinstance(value, str) else json.dumps(value)}")
    ]
