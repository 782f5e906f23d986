"""A Hugging Face Hub of one model on this machine, as far as its client asks: revisions and files with their etags."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Mirror(http.server.ThreadingHTTPServer):
    """Revisions of `model` by name, for the holder of `token` where one is asked for; what was asked is kept."""

    def __init__(self, model: str, revisions: Mapping[str, Path], token: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model, self.revisions, self.token = model, revisions, token
        self.asked: list[str] = []
        self.tokens: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def commit(self, revision: str) -> str:
        return hashlib.sha1(str(self.revisions[revision]).encode()).hexdigest()

    def folder(self, revision: str) -> Path | None:
        by_commit = {self.commit(name): folder for name, folder in self.revisions.items()}
        return self.revisions.get(revision) or by_commit.get(revision)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Mirror
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.tokens.add(self.headers.get("Authorization", ""))
        if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self._send(401, b'{"error": "Invalid credentials in Authorization header"}', {})
        parts = self.path.partition("?")[0].strip("/").split("/")
        named = next((part for part in ("revision", "resolve", "tree") if part in parts), "")
        place = parts.index(named) if named else len(parts)
        revision = parts[place + 1] if named else "main"
        folder = self.server.folder(revision)
        if "/".join(parts[:place]).removeprefix("api/models/") != self.server.model or folder is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        commit = next(self.server.commit(name) for name, path in self.server.revisions.items() if path == folder)
        if named in ("", "revision"):
            files = [{"rfilename": path.name} for path in folder.iterdir()]
            facts: dict[str, Any] = {"id": self.server.model, "sha": commit, "siblings": files, "tags": []}
            return self._send(200, json.dumps(facts).encode(), {"Content-Type": "application/json"})
        path = folder.joinpath(*parts[place + 2 :])
        if not path.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        body = path.read_bytes()
        return self._send(200, body, {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": commit})

    do_HEAD = do_GET

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def mirror(model: str, revisions: Mapping[str, Path], token: str = "") -> Iterator[Mirror]:
    """Serve `model` until left."""
    server = Mirror(model, revisions, token)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
