"""The endpoint engine against a real HTTP server on this machine."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from qwenops.errors import PlatformError, RecipeError
from qwenops.generation.chat import render
from qwenops.generation.endpoint import EndpointEngine
from qwenops.generation.engine import Sampling


class Server(ThreadingHTTPServer):
    """Echoes prompts as an OpenAI-compatible server would; `faults` are statuses to answer first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[int] = []
        self.requests: list[dict] = []
        self.delay_seconds = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body | {"path": self.path, "key": self.headers.get("Authorization")})
        time.sleep(self.server.delay_seconds)
        status = self.server.faults.pop() if self.server.faults else 200
        if self.path.endswith("/chat/completions"):
            choices = [{"index": 0, "message": {"content": body["messages"][-1]["content"]}}]
        else:
            choices = [{"index": i, "text": f"{body['prompt'][-30:]}{i}"} for i in reversed(range(body["n"]))]
        payload = json.dumps({"choices": choices}).encode()
        self.send_response(status)
        self.end_headers()
        try:
            self.wfile.write(payload)
        except BrokenPipeError:
            return  # the client gave up waiting

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def engine_for(server: Server, **options) -> EndpointEngine:
    return EndpointEngine(server.url, "m", **{"sleep": lambda seconds: None, **options})


def test_answers_come_back_in_the_order_of_prompts_and_samples(server):
    prompts = [[{"role": "user", "content": str(i)}] for i in range(20)]
    found = engine_for(server).generate(prompts, Sampling(n=2, temperature=0.5))
    texts = [render(prompt)[-30:] for prompt in prompts]
    assert [[sample.text for sample in group] for group in found] == [[text + "0", text + "1"] for text in texts]
    assert {request["temperature"] for request in server.requests} == {0.5}


def test_the_chat_route_sends_messages_and_the_key(server):
    prompt = [{"role": "user", "content": "hello"}]
    engine = engine_for(server, api="chat", api_key="secret")  # pragma: allowlist secret
    assert engine.generate([prompt], Sampling())[0][0].text == "hello"
    assert server.requests[0]["key"] == "Bearer secret"


def test_a_busy_server_is_asked_again(server):
    server.faults = [503, 429]
    assert engine_for(server, concurrency=1).generate(["x"], Sampling())[0][0].text == "x0"
    assert len(server.requests) == 3


def test_a_server_that_stays_busy_is_a_platform_error(server):
    server.faults = [503] * 9
    with pytest.raises(PlatformError, match="did not answer"):
        engine_for(server, max_retries=2).generate(["x"], Sampling())
    assert len(server.requests) == 3


def test_a_refused_request_is_a_recipe_error_and_is_not_repeated(server):
    server.faults = [401] * 3
    with pytest.raises(RecipeError, match="refused"):
        engine_for(server).generate(["x"], Sampling())
    assert len(server.requests) == 1


def test_a_slow_server_runs_into_the_timeout(server):
    server.delay_seconds = 1.0
    with pytest.raises(PlatformError, match="did not answer"):
        engine_for(server, timeout_seconds=0.1, max_retries=1).generate(["x"], Sampling())


def test_nobody_listening_is_a_platform_error():
    with pytest.raises(PlatformError, match="did not answer"):
        EndpointEngine("http://127.0.0.1:9/v1", "m", max_retries=0).generate(["x"], Sampling())
