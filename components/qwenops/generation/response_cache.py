"""Answers of an endpoint by the content of their request, on disk, so that nothing is asked twice after a kill."""

import hashlib
import json
import threading
from pathlib import Path
from typing import Any


class ResponseCache:
    """JSON lines {"request": digest, "answer": what the server said}, appended as answers come.

    Args:
        folder: Where the file lies; made when it does not exist.
        owner: What the file belongs to, such as the server's URL; another owner has another file.
    """

    def __init__(self, folder: Path, owner: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{_digest(owner)[:16]}.jsonl"
        self._lock = threading.Lock()
        self._answers: dict[str, Any] = {}
        if self._path.exists():
            self._read()

    def find(self, request: Any) -> Any | None:
        """The answer to an equal request, or None."""
        return self._answers.get(_digest(request))

    def keep(self, request: Any, answer: Any) -> None:
        """Remember an answer; it survives a kill from here on."""
        key = _digest(request)
        with self._lock, self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"request": key, "answer": answer}) + "\n")
            self._answers[key] = answer

    def _read(self) -> None:
        text = self._path.read_text(encoding="utf-8")
        whole, _, rest = text.rpartition("\n")
        for line in whole.splitlines():
            row = json.loads(line)
            self._answers[row["request"]] = row["answer"]
        if rest:
            # A kill cut the last line; its request is asked again.
            self._path.write_text(f"{whole}\n" if whole else "", encoding="utf-8")


def _digest(request: Any) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
