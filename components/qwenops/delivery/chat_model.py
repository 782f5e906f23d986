"""An exported model that answers conversations, a word at a time: what `qwenops chat` and `qwenops serve` share.

Report: section 2.2.1 for the long-context modes, which change nothing within the trained length.
"""

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
    TextStreamer,
)
from transformers.utils import logging as transformers_logging

from qwenops.contracts.checkpoint import CHECKPOINT, read_facts
from qwenops.contracts.tokens import encode_texts
from qwenops.errors import RecipeError
from qwenops.generation.chat import control_ids, decode
from qwenops.model.modes import LONGEST_MULTIPLE, apply_request

LongContext = Literal["plain", "yarn", "dca"]
_NEW_TOKENS = 512


class MessageTooLongError(RecipeError):
    """A conversation that leaves no room for an answer."""


@dataclass(frozen=True)
class Decoding:
    """How an answer is drawn.

    Attributes:
        temperature: 0 takes the likeliest token; None leaves this and `top_p` to the model's generation config.
        top_p: Mass of the nucleus.
        max_new_tokens: Longest answer; it may end earlier, where the context does.
        stop: Texts that end the answer and do not belong to it.
        seed: Of the draws; None draws otherwise each time.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_new_tokens: int = _NEW_TOKENS
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        text: Without control tokens.
        prompt_tokens: Tokens of the conversation, chat format included.
        new_tokens: Tokens of the answer, the one that ended it included.
        is_cut: Whether it ended for want of room and not by itself.
    """

    text: str
    prompt_tokens: int
    new_tokens: int
    is_cut: bool


class ChatModel:
    """A Qwen2 model that answers one conversation at a time.

    Args:
        model: In evaluation mode.
        tokenizer: Its tokenizer, with a chat template.
        trained: Tokens the model was trained at; prompt and answer together may take as many, or in another mode
            than plain four times as many.
        long_context: Mode for a request longer than `trained`; shorter ones are always read plainly.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, trained: int, long_context: LongContext
    ) -> None:
        self._model, self._tokenizer, self._trained = model, tokenizer, trained
        self._mode: LongContext = long_context
        self.longest = trained if long_context == "plain" else LONGEST_MULTIPLE * trained
        # A mode is set on the model, and a seed on torch.
        self._turn = threading.Lock()

    def num_tokens(self, messages: Sequence[Mapping[str, str]]) -> int:
        """Tokens of a conversation up to the assistant's header."""
        return len(encode_turns(self._tokenizer, messages))

    def reply(
        self,
        messages: Sequence[Mapping[str, str]],
        decoding: Decoding = Decoding(),
        on_text: Callable[[str], None] = lambda _: None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Reply:
        """Answer a conversation.

        Args:
            messages: With `role` and `content`, the last one the user's.
            decoding: How to draw.
            on_text: Told the answer piece by piece.
            is_cancelled: Asked after every token; true ends the answer there.

        Raises:
            MessageTooLongError: there is no room for an answer.
        """
        ids = encode_turns(self._tokenizer, messages)
        if len(ids) >= self.longest:
            raise MessageTooLongError(
                "the message is too long",
                expected=f"fewer than {self.longest} tokens, the chat format included",
                found=len(ids),
                action="shorten it, or start with --long-context dca",
            )
        room = min(decoding.max_new_tokens, self.longest - len(ids))
        writer = _Writer(self._tokenizer, decoding.stop, on_text)
        prompt = torch.tensor([ids], device=self._model.device)
        with self._turn:
            if self._mode != "plain":
                # Nothing is cached between requests, so each may have a mode of its own.
                apply_request(self._model, self._mode, len(ids) + room, self._trained)
            if decoding.seed is not None:
                torch.manual_seed(decoding.seed)
            generate: Any = self._model.generate  # of a class that `PreTrainedModel` does not name
            with torch.no_grad():
                tokens = generate(
                    prompt,
                    attention_mask=torch.ones_like(prompt),
                    max_new_tokens=room,
                    streamer=writer,
                    stopping_criteria=StoppingCriteriaList([_Ended(lambda: writer.is_ended or is_cancelled())]),
                    **_drawing(decoding),
                )
        new = tokens[0, len(ids) :].tolist()
        (whole,) = decode(self._tokenizer, [new])
        text, is_stopped = _before_stop(whole, decoding.stop)
        own_end = new[-1:] and new[-1] in self._ends()
        return Reply(text, len(ids), len(new), is_cut=not (is_stopped or own_end))

    def _ends(self) -> set[int]:
        ends: Any = getattr(self._model.generation_config, "eos_token_id", None)
        return set(ends) if isinstance(ends, list) else {ends}


def open_chat_model(model_path: Path, long_context: LongContext) -> ChatModel:
    """Load a model folder for conversations.

    Args:
        model_path: An exported model or any checkpoint of this project; a stock Qwen2 folder also works.
        long_context: `plain` reads up to the trained length, the others up to four times as much.

    Raises:
        RecipeError: there is no model, or no chat template.
    """
    if not (model_path / "config.json").is_file():
        raise RecipeError(
            f"no model at {model_path}",
            expected="a folder with config.json, weights and a tokenizer",
            found="no config.json",
            action="give the folder of a finished run or of an exported model",
        )
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype="auto", attn_implementation="sdpa").eval()
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    if tokenizer.chat_template is None:
        raise RecipeError(
            f"the tokenizer in {model_path} has no chat template",
            expected="a chat model",
            found="a base model",
            action="give a checkpoint of sft, dpo or online, or the exported model",
        )
    return ChatModel(model, tokenizer, _trained_length(model_path), long_context)


def encode_turns(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Ids of a conversation in the tokenizer's own chat template, up to the assistant's header.

    The template is rendered around marks and each content tokenized apart, so that what is typed cannot open a turn.
    """
    contents = {f"\ue000{place}\ue001": turn["content"] for place, turn in enumerate(messages)}
    marked = [{**turn, "content": mark} for turn, mark in zip(messages, contents, strict=True)]
    rendered = tokenizer.apply_chat_template(marked, tokenize=False, add_generation_prompt=True)
    ids: list[int] = []
    for piece in filter(None, re.split("(\ue000[0-9]+\ue001)", str(rendered))):
        if piece in contents:
            ids += encode_texts(tokenizer, [contents[piece]])[0]
        else:
            ids += tokenizer.encode(piece, add_special_tokens=False)
    return ids


def _trained_length(path: Path) -> int:
    if (path / CHECKPOINT).is_file():
        return read_facts(path).context_length_tokens
    return int(json.loads((path / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"])


def _drawing(decoding: Decoding) -> dict[str, Any]:
    """`generate`'s arguments where the model's own config is not to decide."""
    if decoding.temperature is None and decoding.top_p is None:
        return {}
    temperature = 1.0 if decoding.temperature is None else decoding.temperature
    if temperature == 0:
        return {"do_sample": False}
    top_p = 1.0 if decoding.top_p is None else decoding.top_p
    return {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}


def _before_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """`text` up to the first of the stops, and whether there is one."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


class _Ended(StoppingCriteria):
    """Ends the answer when it is told to."""

    def __init__(self, is_ended: Callable[[], bool]) -> None:
        self._is_ended = is_ended

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:  # type: ignore[override]
        return torch.full((input_ids.shape[0],), self._is_ended(), dtype=torch.bool, device=input_ids.device)


class _Writer(TextStreamer):
    """Hands finished words on, without control tokens and nothing of a stop; what may become one is held back."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], on_text: Callable[[str], None]
    ) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=False)
        self._control, self._stops, self._on_text = control_ids(tokenizer), stops, on_text
        self._held, self.is_ended = "", False

    def put(self, value: Tensor) -> None:
        """See `TextStreamer`."""
        if self.next_tokens_are_prompt or int(value.flatten()[0]) not in self._control:
            super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """See `TextStreamer`."""
        if self.is_ended:
            return
        self._held, self.is_ended = _before_stop(self._held + text, self._stops)
        keep = 0 if stream_end or self.is_ended else self._longest_begin()
        ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        if ready:
            self._on_text(ready)

    def _longest_begin(self) -> int:
        """Characters at the end of what is held that a stop may begin with."""
        sizes = (size for stop in self._stops for size in range(1, len(stop)) if self._held.endswith(stop[:size]))
        return max(sizes, default=0)
