"""Talk to an exported model on a terminal; the answer appears while it is made.

Report: section 2.2.1 for the long-context modes, which change nothing within the trained length.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TextIO

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, TextStreamer
from transformers.utils import logging as transformers_logging

from qwenops.contracts.checkpoint import CHECKPOINT, read_facts
from qwenops.contracts.tokens import encode_texts
from qwenops.errors import RecipeError
from qwenops.generation.chat import control_ids, decode
from qwenops.model.modes import LONGEST_MULTIPLE, apply_request

LongContext = Literal["plain", "yarn", "dca"]
_PROMPT, _FORGET = "you> ", "/new"
_LEAVE = ("/exit", "/quit")
_NEW_TOKENS = 512


class Session:
    """One conversation with a model; earlier turns stay in the prompt until they no longer fit.

    Args:
        model: A Qwen2 model in evaluation mode.
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
        self._longest = trained if long_context == "plain" else LONGEST_MULTIPLE * trained
        self._messages: list[dict[str, str]] = []

    def answer(self, question: str, out: TextIO) -> str:
        """Answer `question`, writing the words to `out` as they come.

        Raises:
            RecipeError: the question alone is longer than the model can read.
        """
        self._messages.append({"role": "user", "content": question})
        prompt = torch.tensor([self._fitting()], device=self._model.device)
        streamer = _Writer(self._tokenizer, out)
        room = min(_NEW_TOKENS, self._longest - prompt.shape[1])
        if self._mode != "plain":
            # Nothing is cached between turns, so each request may have a mode of its own.
            apply_request(self._model, self._mode, prompt.shape[1] + room, self._trained)
        generate: Any = self._model.generate  # of a class that `PreTrainedModel` does not name
        with torch.no_grad():
            tokens = generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=room, streamer=streamer)
        (text,) = decode(self._tokenizer, tokens[:, prompt.shape[1] :].tolist())
        self._messages.append({"role": "assistant", "content": text})
        return text

    def forget(self) -> None:
        """Start a new conversation."""
        self._messages.clear()

    def _fitting(self) -> list[int]:
        """Ids of the conversation without the oldest turns that would leave no room for an answer."""
        while True:
            ids = encode_turns(self._tokenizer, self._messages)
            length = len(ids)
            if length < self._longest:
                return ids
            if len(self._messages) == 1:
                self.forget()
                raise RecipeError(
                    "the message is too long",
                    expected=f"fewer than {self._longest} tokens, the chat format included",
                    found=length,
                    action="shorten it, or start with --long-context dca",
                )
            del self._messages[:2]


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


def chat(model_path: Path, long_context: LongContext, stream_in: TextIO, stream_out: TextIO) -> None:
    """Read questions from `stream_in` and answer them on `stream_out` until the input ends.

    Raises:
        RecipeError: `model_path` is no model folder, or its tokenizer has no chat template.
    """
    session = open_session(model_path, long_context)
    stream_out.write(f"{model_path.name}: {_FORGET} forgets the conversation, {_LEAVE[0]} or Ctrl-D ends.\n")
    try:
        for question in _questions(stream_in, stream_out):
            if question == _FORGET:
                session.forget()
                continue
            try:
                session.answer(question, stream_out)
            except RecipeError as error:
                stream_out.write(f"{error}\n")
    except KeyboardInterrupt:
        stream_out.write("\n")


def open_session(model_path: Path, long_context: LongContext) -> Session:
    """Load a model folder for a conversation.

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
    return Session(model, tokenizer, _trained_length(model_path), long_context)


def _trained_length(path: Path) -> int:
    if (path / CHECKPOINT).is_file():
        return read_facts(path).context_length_tokens
    return int(json.loads((path / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"])


def _questions(stream_in: TextIO, stream_out: TextIO) -> Iterator[str]:
    while True:
        stream_out.write(_PROMPT)
        stream_out.flush()
        line = stream_in.readline()
        question = line.strip()
        if not line or question in _LEAVE:
            stream_out.write("\n")
            return
        if question:
            yield question


class _Writer(TextStreamer):
    """Writes finished words to a stream instead of printing them; control tokens alone are left out."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, out: TextIO) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=False)
        self._out, self._control = out, control_ids(tokenizer)

    def put(self, value: torch.Tensor) -> None:
        if self.next_tokens_are_prompt or int(value.flatten()[0]) not in self._control:
            super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self._out.write(text + ("\n" if stream_end else ""))
        self._out.flush()
