"""What following a log needs, whosever it is: a file that knows where it stopped, and a thread that reads again.

A line is kept as `kubectl logs --timestamps` prints it: its time stamp, a space, the line. So a follower in another
process (the step was killed, its next attempt adopts the job) goes on after the last whole line and repeats none.
"""

import re
import threading
from collections.abc import Callable
from pathlib import Path

_STAMP = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?Z ?(.*)$", re.DOTALL)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_END_BYTES = 1 << 16


class LogFile:
    """The lines of one log that have arrived.

    Attributes:
        last: Time stamp of the newest line; empty before the first.
        lines: How many there are.
    """

    def __init__(self, path: Path, show: Callable[[str], None]) -> None:
        """Take up `path` where an earlier process left it; `show` gets the text of each further line."""
        self.path, self.last, self.lines = path, "", 0
        self._show = show
        if path.is_file():
            self._resume()

    def append(self, stamp: str, text: str) -> None:
        """Keep and show one line; `stamp` is what `split` gives."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(f"{stamp}Z {text}\n" if stamp else f"{text}\n")
        self.last, self.lines = max(stamp, self.last), self.lines + 1
        self._show(text)

    def tail(self, most: int) -> list[str]:
        """The newest lines, without their time stamps."""
        if not self.path.is_file():
            return []
        with self.path.open("rb") as stream:
            stream.seek(max(self.path.stat().st_size - _END_BYTES, 0))
            found = stream.read().decode("utf-8", errors="replace").splitlines()
        return [split(line)[1] for line in found[-most:]]

    def _resume(self) -> None:
        """Drop a line that a killed process half wrote, and find the last whole one."""
        with self.path.open("rb+") as stream:
            whole = 0
            for line in stream:
                if line.endswith(b"\n"):
                    whole += len(line)
                    self.lines += 1
                    self.last = max(self.last, split(line.decode("utf-8", errors="replace"))[0])
            stream.truncate(whole)


class Follower(threading.Thread):
    """Reads a log to its end, again and again after breaks, until `stop` is called.

    A subclass says how to read; what it may raise on a break is in `breaks`.
    """

    breaks: tuple[type[Exception], ...] = ()

    def __init__(self, log: LogFile) -> None:
        super().__init__(daemon=True, name=f"log-{log.path.name}")
        self.log, self.stopped = log, threading.Event()

    def run(self) -> None:
        """Read, and read again after a break, with growing pauses while nothing comes."""
        pause = _FIRST_PAUSE
        while not self.stopped.is_set():
            before = self.log.lines
            try:
                if self.read():
                    return
            except self.breaks:
                pass
            pause = _FIRST_PAUSE if self.log.lines != before else min(pause * 2, _LONGEST_PAUSE)
            self.stopped.wait(pause)

    def read(self) -> bool:
        """Append lines until the stream breaks or ends; True when nothing more can come."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the thread, also while it waits for a line."""
        self.stopped.set()


def split(raw: str) -> tuple[str, str]:
    """Time stamp without zone, padded so that stamps compare as text, and the line itself; no stamp gives ""."""
    found = _STAMP.match(raw)
    if not found:
        return "", raw
    return f"{found[1]}.{(found[2] or ''):0<9}", found[3]
