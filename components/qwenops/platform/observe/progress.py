"""Progress of long work: a bar on a terminal, plain lines elsewhere, with rate and time left."""

import sys
import time
from collections.abc import Callable

_LINE_SECONDS = 5.0
_BAR_SECONDS = 0.2
_BAR_WIDTH = 28


class Progress:
    """A progress display over a known number of units.

    Args:
        label: What is running.
        total: Units of the whole work.
        unit: Name of a unit ("tokens", "documents"); the rate is given in it.
        bar: Draw a bar that redraws its line; otherwise print a line every few seconds.
        plain: Print at all; a pod's JSON lines take the place of it.
        watch: Called with (done, total, units per second, note) whenever the display is renewed.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str,
        *,
        bar: bool,
        plain: bool = True,
        watch: Callable[[int, int, float, str], None] | None = None,
    ) -> None:
        self._label, self._total, self._unit, self._bar = label, max(total, 1), unit, bar
        self._plain, self._watch = plain, watch
        self._done = 0
        self._note = ""
        self._began = self._shown = time.monotonic()
        self._offset = 0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def resume_at(self, done: int) -> None:
        """Say that `done` units were finished by an earlier process, so that they do not count in the rate."""
        self._done = self._offset = done

    def advance(self, units: int = 1, note: str = "") -> None:
        """Count `units` as done; `note` (a loss, say) is shown behind the rate."""
        self._done += units
        self._note = note or self._note
        now = time.monotonic()
        if now - self._shown >= (_BAR_SECONDS if self._bar else _LINE_SECONDS):
            self._shown = now
            self._show(now)

    def close(self) -> None:
        """Show the final state and end the line."""
        self._show(time.monotonic())
        if self._bar and self._plain:
            sys.stdout.write("\n")
            sys.stdout.flush()

    def _show(self, now: float) -> None:
        elapsed = max(now - self._began, 1e-9)
        rate = (self._done - self._offset) / elapsed
        if self._watch:
            self._watch(self._done, self._total, rate, self._note)
        if not self._plain:
            return
        left = (self._total - self._done) / rate if rate > 0 else 0.0
        text = (
            f"{self._done}/{self._total} {self._unit}  {_short(rate)} {self._unit}/s  {_clock(left)} left  {self._note}"
        )
        if self._bar:
            full = min(self._done * _BAR_WIDTH // self._total, _BAR_WIDTH)
            bar = "#" * full + "-" * (_BAR_WIDTH - full)
            sys.stdout.write(f"\r\033[K{self._label:<13} [{bar}] {text.rstrip()}")
        else:
            sys.stdout.write(f"[{self._label}] {text.rstrip()}\n")
        sys.stdout.flush()


def _short(value: float) -> str:
    for bound, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= bound:
            return f"{value / bound:.1f}{letter}"
    return f"{value:.1f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:02d}:{rest:02d}"
