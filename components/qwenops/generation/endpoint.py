"""Generation through an OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp, TGI or a hosted model.

Standard library only, so that every image can use it. Requests run on a few threads; a busy or broken server is asked
again after a growing pause, a refused request is not.
"""

import http.client
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from qwenops.contracts.tokens import IM_END
from qwenops.errors import PlatformError, RecipeError
from qwenops.generation.chat import defuse, render, with_system
from qwenops.generation.engine import Prompt, Sample, Sampling

_BUSY = {408, 409, 425, 429, 500, 502, 503, 504}
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0


class EndpointEngine:
    """An engine behind HTTP.

    Args:
        url: Base URL up to and including `/v1`.
        model: Model name the server knows.
        api: "completions" sends rendered ChatML as it is; "chat" sends messages and lets the server render them.
        api_key: Sent as a bearer token when not empty.
        timeout_seconds: Wait for one request.
        max_retries: Attempts after the first.
        concurrency: Requests in flight.
        sleep: Waits between attempts.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api: Literal["completions", "chat"] = "completions",
        api_key: str = "",
        timeout_seconds: float = 120.0,
        max_retries: int = 4,
        concurrency: int = 16,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise RecipeError("an endpoint needs a URL", expected="http://host:port/v1", found=url or "none")
        self._url, self._model, self._api, self._key = url.rstrip("/"), model, api, api_key
        self._timeout, self._retries, self._concurrency, self._sleep = (
            timeout_seconds,
            max_retries,
            concurrency,
            sleep,
        )

    @property
    def name(self) -> str:
        """The model's name on the server."""
        return self._model

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Sample]]:
        """See `Engine.generate`.

        Raises:
            PlatformError: the server could not be reached, stayed busy or answered nonsense.
            RecipeError: the server refused the request (key, model name, parameters).
        """
        with ThreadPoolExecutor(self._concurrency) as pool:
            return list(pool.map(lambda item: self._complete(item[1], item[0], sampling), enumerate(prompts)))

    def _complete(self, prompt: Prompt, index: int, sampling: Sampling) -> list[Sample]:
        body: dict[str, Any] = {
            "model": self._model,
            "n": sampling.n,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "stop": [IM_END],
            "seed": sampling.seed + index,
        }
        if self._api == "chat" and not isinstance(prompt, str):
            messages = [dict(turn) | {"content": defuse(turn["content"])} for turn in with_system(prompt)]
            answer = self._post("/chat/completions", body | {"messages": messages})
        else:
            answer = self._post("/completions", body | {"prompt": render(prompt)})
        try:
            choices = sorted(answer["choices"], key=lambda choice: choice.get("index", 0))
            texts = [c["message"]["content"] if "message" in c else c["text"] for c in choices]
            finishes = ["length" if c.get("finish_reason") == "length" else "stop" for c in choices]
        except (KeyError, TypeError, AttributeError) as error:
            raise PlatformError(
                f"{self._url} gave an answer of another shape", expected="choices with text", found=str(answer)[:200]
            ) from error
        if len(texts) != sampling.n:
            raise PlatformError(f"{self._url} gave too few answers", expected=str(sampling.n), found=len(texts))
        return [Sample(text or "", finish, None, self._model) for text, finish in zip(texts, finishes, strict=True)]

    def _post(self, route: str, body: dict[str, Any]) -> Any:
        """Send one request, again when the server is busy or the connection breaks."""
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {self._key}"} if self._key else {}
        request = urllib.request.Request(self._url + route, json.dumps(body).encode(), headers, method="POST")
        fault: object = ""
        for attempt in range(self._retries + 1):
            if attempt:
                pause = min(_FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), _LONGEST_PAUSE_SECONDS)
                self._sleep(pause * random.uniform(0.5, 1.0))  # apart, so that threads do not return together
            try:
                with urllib.request.urlopen(request, timeout=self._timeout) as response:
                    return json.loads(response.read())
            except urllib.error.HTTPError as error:
                fault = f"{error.code} {error.read(300).decode(errors='replace')}"
                if error.code not in _BUSY:
                    raise RecipeError(
                        f"{self._url}{route} refused the request",
                        expected="status 200",
                        found=fault,
                        action="check the model name, the key and the engine's settings in the recipe",
                    ) from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                fault = f"{type(error).__name__}: {error}"
        raise PlatformError(
            f"{self._url}{route} did not answer",
            expected=f"an answer within {self._retries + 1} attempts",
            found=fault,
            action="check that the endpoint is up and reachable from here, then run again",
        )
