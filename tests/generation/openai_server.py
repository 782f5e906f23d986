"""An OpenAI-compatible HTTP server on this machine that answers, or fails, as a test says."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Echoes prompts as an OpenAI-compatible server would, except where `fault` says otherwise.

    `faults` are statuses to answer first; `fault` takes the prompt and gives what else to send, as (status, headers,
    body).
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[int] = []
        self.fault: Callable[[str], tuple[int, dict[str, str], bytes] | None] = lambda prompt: None
        self.requests: list[dict] = []
        self.delay_seconds = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def asked(self, prompt: str) -> int:
        return sum(prompt in json.dumps(request) for request in self.requests)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body | {"path": self.path, "key": self.headers.get("Authorization")})
        time.sleep(self.server.delay_seconds)
        status = self.server.faults.pop() if self.server.faults else 200
        if self.path.endswith("/chat/completions"):
            prompt = body["messages"][-1]["content"]
            choices = [{"index": 0, "message": {"content": prompt}, "finish_reason": "stop"}]
        else:
            prompt = body["prompt"]
            choices = [{"index": i, "text": f"{prompt[-30:]}{i}"} for i in reversed(range(body["n"]))]
        payload, headers = json.dumps({"choices": choices}).encode(), {}
        status, headers, payload = self.server.fault(prompt) or (status, headers, payload)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(payload)
        except BrokenPipeError:
            return  # the client gave up waiting

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def serving() -> Iterator[Server]:
    """A server that runs until left."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()
