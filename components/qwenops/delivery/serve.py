"""An exported model behind the OpenAI API's chat completions: `qwenops serve`.

For a laptop and for tries: it answers one request at a time, by the same code as `qwenops chat`, so that contents are
tokenized apart and open no turn, and a mode reads beyond the trained length. vLLM serves the exported folder to many.
"""

import hmac
import json
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from qwenops.delivery.chat_model import ChatModel, Decoding, Reply
from qwenops.errors import QwenOpsError

# Fields that change what an answer is, and that are not served: ignoring them would answer another question.
_NOT_SERVED = (
    "tools",
    "tool_choice",
    "functions",
    "response_format",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "audio",
)
_MOST_CHOICES = 16


class TextPart(BaseModel):
    """A piece of a content; pictures and sound are refused."""

    type: Literal["text"]
    text: str


class ChatTurn(BaseModel):
    """A message as a client sends it."""

    role: Literal["system", "user", "assistant"]
    content: str | list[TextPart]

    def plain(self) -> dict[str, str]:
        """The message with its content as one text."""
        parts = self.content if isinstance(self.content, list) else [TextPart(type="text", text=self.content)]
        return {"role": self.role, "content": "".join(part.text for part in parts)}


class ChatRequest(BaseModel):
    """Body of `POST /v1/chat/completions`, as far as it is served."""

    model_config = ConfigDict(extra="allow")

    messages: list[ChatTurn] = Field(min_length=1)
    model: str = ""
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    n: int = Field(default=1, ge=1, le=_MOST_CHOICES)
    stop: str | list[str] | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    stream: bool = False
    stream_options: dict[str, Any] | None = None

    def decoding(self, choice: int) -> Decoding:
        """How to draw the answer number `choice`."""
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        most = self.max_completion_tokens or self.max_tokens
        seed = None if self.seed is None else self.seed + choice
        found = Decoding(self.temperature, self.top_p, stop=tuple(filter(None, stops)), seed=seed)
        return replace(found, max_new_tokens=most) if most else found


class _RefusedError(Exception):
    """A request that is answered with an error of the API."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


def build_app(model: ChatModel, name: str, api_key: str = "") -> FastAPI:
    """The server's routes: `/health`, `/v1/models` and `/v1/chat/completions`.

    Args:
        model: Answers.
        name: Its name in the API; a request for another one is refused.
        api_key: What `Authorization: Bearer` must hold; empty asks for none.
    """
    app = FastAPI(title="qwenops", docs_url=None, redoc_url=None)
    began = int(time.time())

    @app.exception_handler(_RefusedError)
    def refuse(_: Request, error: _RefusedError) -> JSONResponse:
        body = {"message": str(error), "type": "invalid_request_error", "param": error.param, "code": error.code}
        return JSONResponse({"error": body}, error.status)

    @app.exception_handler(RequestValidationError)
    def explain(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = ".".join(str(step) for step in first["loc"][1:])
        return refuse(request, _RefusedError(400, f"{field}: {first['msg']}", "invalid_value", field))

    def check_key(request: Request) -> None:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if api_key and not hmac.compare_digest(given.encode(), api_key.encode()):
            raise _RefusedError(401, "the key of this server is another one", "invalid_api_key")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    def models(request: Request) -> dict[str, Any]:
        check_key(request)
        listed = {
            "id": name,
            "object": "model",
            "created": began,
            "owned_by": "qwenops",
            "max_model_len": model.longest,
        }
        return {"object": "list", "data": [listed]}

    @app.post("/v1/chat/completions")
    def complete(body: ChatRequest, request: Request) -> Any:
        check_key(request)
        _check(body, name)
        messages = [turn.plain() for turn in body.messages]
        if (found := model.num_tokens(messages)) >= model.longest:
            raise _RefusedError(
                400,
                f"the messages have {found} tokens, and this server reads {model.longest} with the answer",
                "context_length_exceeded",
                "messages",
            )
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": name}
        if body.stream:
            return StreamingResponse(_events(model, messages, body, head), media_type="text/event-stream")
        replies = [model.reply(messages, body.decoding(choice)) for choice in range(body.n)]
        choices = [
            {
                "index": place,
                "message": {"role": "assistant", "content": reply.text},
                "finish_reason": _reason(reply),
                "logprobs": None,
            }
            for place, reply in enumerate(replies)
        ]
        return {**head, "object": "chat.completion", "choices": choices, "usage": _usage(replies)}

    return app


def serve(model: ChatModel, name: str, host: str, port: int, api_key: str, on_start: Callable[[str], None]) -> None:
    """Answer requests until the process is asked to end.

    Args:
        model: Answers.
        name: See `build_app`.
        host: Address to listen at.
        port: 0 takes a free one.
        api_key: See `build_app`.
        on_start: Told the server's address once it listens.
    """

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                place = self.servers[0].sockets[0].getsockname()
                on_start(f"http://{host}:{place[1]}/v1")

    Server(uvicorn.Config(build_app(model, name, api_key), host=host, port=port, log_level="warning")).run()


def _check(body: ChatRequest, name: str) -> None:
    if body.model and body.model != name:
        raise _RefusedError(404, f"this server has the model {name}, not {body.model}", "model_not_found", "model")
    given = body.model_extra or {}
    # A client may send a field with the value that stands for nothing.
    for field in _NOT_SERVED:
        if given.get(field) not in (None, False, [], {}, {"type": "text"}, "none"):
            raise _RefusedError(400, f"{field} is not served", "unsupported_parameter", field)


def _events(model: ChatModel, messages: list[dict[str, str]], body: ChatRequest, head: dict[str, Any]) -> Iterator[str]:
    """Server-sent events of the answers; a client that goes away ends the answer it would have had."""
    pieces: queue.Queue[dict[str, Any] | None] = queue.Queue()
    gone = threading.Event()
    replies: list[Reply] = []

    def chunk(place: int, delta: dict[str, str], reason: str | None) -> dict[str, Any]:
        choice = {"index": place, "delta": delta, "finish_reason": reason, "logprobs": None}
        return {**head, "object": "chat.completion.chunk", "choices": [choice]}

    def answer() -> None:
        try:
            for place in range(body.n):
                pieces.put(chunk(place, {"role": "assistant", "content": ""}, None))
                reply = model.reply(
                    messages,
                    body.decoding(place),
                    lambda text, place=place: pieces.put(chunk(place, {"content": text}, None)),
                    gone.is_set,
                )
                replies.append(reply)
                pieces.put(chunk(place, {}, _reason(reply)))
            if (body.stream_options or {}).get("include_usage"):
                pieces.put({**head, "object": "chat.completion.chunk", "choices": [], "usage": _usage(replies)})
        except (QwenOpsError, RuntimeError) as error:
            pieces.put({"error": {"message": str(error), "type": "server_error", "param": None, "code": None}})
        finally:
            pieces.put(None)

    threading.Thread(target=answer, daemon=True).start()
    try:
        while (piece := pieces.get()) is not None:
            yield f"data: {json.dumps(piece, ensure_ascii=False)}\n\n"
        yield "data: [DONE]\n\n"
    finally:
        gone.set()


def _reason(reply: Reply) -> str:
    return "length" if reply.is_cut else "stop"


def _usage(replies: list[Reply]) -> dict[str, int]:
    asked, new = replies[0].prompt_tokens, sum(reply.new_tokens for reply in replies)
    return {"prompt_tokens": asked, "completion_tokens": new, "total_tokens": asked + new}
