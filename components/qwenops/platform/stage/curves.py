"""The curves of a stage: beside its checkpoints while it runs, so that they outlive a kill; in its artifact at the end.

A loop that goes on from a checkpoint repeats the steps after it, so the later of two points at one step counts.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

CURVES = "curves.jsonl"


def add_point(scratch: Path, name: str, step: int, value: float) -> None:
    """Append a finite point to what the stage has drawn so far, in this process and in those before it."""
    # The break goes first: a line that a kill cut short does not spoil the next.
    with (scratch / CURVES).open("a", encoding="utf-8") as stream:
        stream.write("\n" + json.dumps({"name": name, "step": step, "value": float(value)}, allow_nan=False))


def publish_curves(scratch: Path, out: Path) -> None:
    """Write every curve whole into `out`: each step once, in order; nothing where none was drawn."""
    if not (scratch / CURVES).is_file():
        return
    curves: defaultdict[str, dict[int, float]] = defaultdict(dict)
    with (scratch / CURVES).open(encoding="utf-8") as stream:
        for line in stream:
            if point := _point(line):
                curves[point["name"]][point["step"]] = point["value"]
    with (out / CURVES).open("w", encoding="utf-8") as stream:
        for name, points in curves.items():
            for step, value in sorted(points.items()):
                stream.write(json.dumps({"name": name, "step": step, "value": value}) + "\n")


def _point(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None  # The empty first line, or one that a kill cut short.
