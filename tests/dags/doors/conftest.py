"""What the doors ask a run of."""

import json
from pathlib import Path


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
