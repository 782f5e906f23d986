"""The state of a running stage in one small file, for whoever watches it: the exporter, in this process or another.

A file and not a variable, because the process that trains (a Ray worker, rank 0) is seldom the one that is scraped.
It lies in the stage's scratch folder, is replaced at most once a second, and is written only where a port for
metrics is named.
"""

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from qwenops.contracts.json_text import replace_not_finite
from qwenops.platform.logs import rank

LIVE = "live.json"
_SECONDS_BETWEEN = 1.0


@dataclass
class LiveState:
    """What is known of a running stage; None is unknown.

    Attributes:
        last_step_timestamp: When it last made a step or advanced, seconds since the epoch.
        step: The last step it recorded a point of a curve at.
        loss: The last loss it recorded, in its own unit; may be NaN.
        tokens_per_second: Rate of its progress when that counts tokens.
        nonfinite: Recorded losses that were no finite number, since its process started.
    """

    last_step_timestamp: float | None = None
    step: int | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    nonfinite: int = 0


class Live:
    """Writes the state of one stage; does nothing when `path` is None or on a worker other than rank 0."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._state, self._written = path, LiveState(), 0.0

    def point(self, name: str, step: int, value: float) -> None:
        """Take in one point of a curve; `loss` and `loss.<name>` are losses."""
        self._state.step = step
        if name.split(".")[0] == "loss":
            self._state.loss = value
            self._state.nonfinite += not math.isfinite(value)
        self._touch()

    def rate(self, unit: str, per_second: float) -> None:
        """Take in what a progress display counts."""
        if unit == "tokens":
            self._state.tokens_per_second = per_second
        self._touch()

    def _touch(self) -> None:
        now = time.time()
        self._state.last_step_timestamp = now
        if self._path is None or rank() or (now - self._written < _SECONDS_BETWEEN and not self._alarming):
            return
        self._written = now
        draft = self._path.with_suffix(".tmp")
        plain = asdict(self._state)
        if self._alarming:
            # JSON has no number for what is none; a scrape does, and reads the word.
            plain["loss"] = str(plain["loss"])
        draft.write_text(json.dumps(replace_not_finite(plain), allow_nan=False), encoding="utf-8")
        draft.replace(self._path)

    @property
    def _alarming(self) -> bool:
        """A loss that is no number is written at once: the stage may end before the next second."""
        return self._state.loss is not None and not math.isfinite(self._state.loss)


def read_live(path: Path) -> LiveState:
    """The state in `path`; an empty one when there is none yet."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return LiveState()
    return LiveState(**plain | {"loss": None if plain["loss"] is None else float(plain["loss"])})


@dataclass
class JobState:
    """What a launcher knows of the RayJob it owns; None is unknown, or that there is no job.

    Attributes:
        terminal_timestamp: When the job came to its end, seconds since the epoch.
        quota_held: Whether the cluster still keeps resources for it.
    """

    terminal_timestamp: float | None = None
    quota_held: bool | None = None
