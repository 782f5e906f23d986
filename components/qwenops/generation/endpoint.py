"""Generation through an OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp, TGI or a hosted model.

`requests` sends (it knows proxies and certificates from the environment) and urllib3's `Retry` decides how long to
wait: for what `Retry-After` says, else for a growing time. Neither repeats a body that broke off or is no JSON, so the
attempts are made here. The openai client was not taken: it ignores a `Retry-After` of more than a minute and does not
repeat a broken body either. One prompt that gets no answer is one lost sample; the others are answered.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import MaxRetryError, ProtocolError
from urllib3.util import Retry

from qwenops.contracts.tokens import IM_END
from qwenops.errors import PlatformError, QwenOpsError, RecipeError
from qwenops.generation.chat import escape_control_tokens, render, split_reasoning, with_system
from qwenops.generation.engine import Finish, Prompt, Sample, Sampling
from qwenops.generation.response_cache import ResponseCache

_BUSY = {408, 409, 425, 429, *range(500, 600)}
# These refuse whoever asks; any other refusal is of one prompt.
_CLOSED = {401, 402, 403, 404, 405}
_ENDED = {"stop", "eos", "eos_token", "end_turn", "stop_sequence"}
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
# So many prompts in a row without an answer say that the server is gone, not that they are bad.
_MOST_LOST_IN_A_ROW = 32


class EndpointEngine:
    """An engine behind HTTP.

    Args:
        url: Base URL up to and including `/v1`.
        model: Model name the server knows.
        api: "completions" sends rendered ChatML; "chat" sends messages and lets the server render them. In both,
            control tokens in contents are spelt apart, since the server tokenizes.
        api_key: Sent as a bearer token when not empty.
        timeout_seconds: Wait for one request.
        max_retries: Attempts after the first.
        concurrency: Requests in flight.
        store: Folder for the answers, see `ResponseCache`; None keeps none.
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
        store: Path | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise RecipeError("an endpoint needs a URL", expected="http://host:port/v1", found=url or "none")
        self._url, self._model, self._api = url.rstrip("/"), model, api
        self._timeout, self._concurrency = timeout_seconds, concurrency
        self._retry = Retry(
            total=max_retries,
            allowed_methods=None,  # a request that was answered half is asked again, POST or not
            backoff_factor=_FIRST_PAUSE_SECONDS,
            backoff_max=_LONGEST_PAUSE_SECONDS,
            backoff_jitter=_FIRST_PAUSE_SECONDS,
        )
        self._session = requests.Session()
        self._session.mount(self._url, HTTPAdapter(pool_maxsize=concurrency))
        self._session.auth = _Bearer(api_key)
        self._store = ResponseCache(store, self._url) if store else None
        self._lock = threading.Lock()
        self._answered, self._lost_in_a_row = False, 0

    @property
    def name(self) -> str:
        """The model's name on the server."""
        return self._model

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Sample]]:
        """See `Engine.generate`; the samples of a prompt that got no answer are "lost".

        Raises:
            PlatformError: the server has answered nothing yet, or no longer answers.
            RecipeError: the server refuses every request (key, model name), or refused all that it was asked.
        """
        with ThreadPoolExecutor(self._concurrency) as pool:
            found = list(pool.map(lambda item: self._complete(item[1], item[0], sampling), enumerate(prompts)))
        faults = [answer for answer in found if isinstance(answer, QwenOpsError)]
        if faults and len(faults) == len(found) and not self._answered:
            raise faults[0]
        return [
            [Sample("", "lost", model=self._model, fault=str(answer))] * sampling.n
            if isinstance(answer, QwenOpsError)
            else answer
            for answer in found
        ]

    def _complete(self, prompt: Prompt, index: int, sampling: Sampling) -> list[Sample] | QwenOpsError:
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
            route = "/chat/completions"
            body["messages"] = [
                {**turn, "content": escape_control_tokens(turn["content"])} for turn in with_system(prompt)
            ]
        else:
            route, body["prompt"] = "/completions", render(prompt)
        answer = self._store.find([route, body]) if self._store else None
        if answer is None:
            answer = self._post(route, body)
            if isinstance(answer, QwenOpsError):
                return answer
            if self._store:
                self._store.keep([route, body], answer)
        self._answered = True
        return self._samples(answer, sampling)

    def _samples(self, answer: Any, sampling: Sampling) -> list[Sample]:
        choices = sorted(answer["choices"], key=lambda choice: choice.get("index", 0))
        used = (answer.get("usage") or {}).get("completion_tokens", 0)
        cut = len(choices) == 1 and used >= sampling.max_new_tokens
        return [self._sample(choice, "length" if cut else "stop") for choice in choices]

    def _sample(self, choice: dict[str, Any], unsaid: Finish) -> Sample:
        """One choice; `unsaid` is how it ended where the server does not say."""
        message = choice.get("message", {})
        reasoning, text = split_reasoning(message.get("content") or choice.get("text") or "")
        said = choice.get("finish_reason")
        finish: Finish = unsaid if said is None else "stop" if said in _ENDED else "length"
        return Sample(text, finish, None, self._model, message.get("reasoning_content") or reasoning)

    def _post(self, route: str, body: dict[str, Any]) -> Any:
        """What the server says to one request, asked again when it is busy or breaks; or why there is no answer.

        Raises:
            RecipeError: the server refuses every request.
            PlatformError: it no longer answers.
        """
        retry = self._retry
        while True:
            response = None
            try:
                response = self._session.post(
                    self._url + route, json=body, timeout=self._timeout, allow_redirects=False
                )
                fault: object = f"{response.status_code} {response.text[:300]}"
                if response.status_code not in _BUSY:
                    if response.status_code != requests.codes.ok:
                        return self._refused(route, response.status_code, fault)
                    answer = response.json()
                    if _is_answer(answer, body["n"]):
                        self._lost_in_a_row = 0
                        return answer
                    fault = f"{fault}, which is not {body['n']} choices with text"
            except requests.RequestException as error:
                fault = f"{type(error).__name__}: {error}"
            try:
                retry = retry.increment("POST", route, error=ProtocolError(fault))
            except MaxRetryError:
                return self._lost(route, fault)
            retry.sleep(response.raw if response is not None else None)

    def _refused(self, route: str, status: int, fault: object) -> RecipeError:
        error = RecipeError(
            f"{self._url}{route} refused the request",
            expected="status 200",
            found=fault,
            action="check the model name, the key and the engine's settings in the recipe, and the prompt's length",
        )
        if status in _CLOSED:
            raise error
        return error

    def _lost(self, route: str, fault: object) -> PlatformError:
        error = PlatformError(
            f"{self._url}{route} did not answer",
            expected=f"an answer within {self._retry.total + 1} attempts",  # type: ignore[operator]
            found=fault,
            action="check that the endpoint is up and reachable from here, then run again; answers so far are kept",
        )
        with self._lock:
            self._lost_in_a_row += 1
            if self._lost_in_a_row >= _MOST_LOST_IN_A_ROW:
                raise error
        return error


class _Bearer(AuthBase):
    """Sends the key and nothing that a netrc file may hold for the host."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _is_answer(answer: Any, number: int) -> bool:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or len(choices) != number:
        return False
    return all(isinstance(c, dict) and (isinstance(c.get("message"), dict) or "text" in c) for c in choices)
