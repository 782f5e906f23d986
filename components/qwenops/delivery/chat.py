"""Talk to an exported model on a terminal; the answer appears while it is made.

Report: section 2.2.1 for the long-context modes, which change nothing within the trained length.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TextIO

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, TextStreamer
from transformers.utils import logging as transformers_logging

from qwenops.contracts.checkpoint import CHECKPOINT, read_facts
from qwenops.errors import RecipeError
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
        self._model, self._tokenizer, self._trained, self._mode = model, tokenizer, trained, long_context
        self._longest = trained if long_context == "plain" else LONGEST_MULTIPLE * trained
        self._messages: list[dict[str, str]] = []

    def answer(self, question: str, out: TextIO) -> str:
        """Answer `question`, writing the words to `out` as they come.

        Raises:
            RecipeError: the question alone is longer than the model can read.
        """
        self._messages.append({"role": "user", "content": question})
        inputs = self._fitting()
        streamer = _Writer(self._tokenizer, out)
        room = min(_NEW_TOKENS, self._longest - inputs["input_ids"].shape[1])
        if self._mode != "plain":
            # Nothing is cached between turns, so each request may have a mode of its own.
            apply_request(self._model, self._mode, inputs["input_ids"].shape[1] + room, self._trained)
        with torch.no_grad():
            tokens = self._model.generate(**inputs, max_new_tokens=room, streamer=streamer)
        text = self._tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        self._messages.append({"role": "assistant", "content": text})
        return text

    def forget(self) -> None:
        """Start a new conversation."""
        self._messages.clear()

    def _fitting(self) -> dict[str, torch.Tensor]:
        """The rendered conversation without the oldest turns that would leave no room for an answer."""
        while True:
            text = self._tokenizer.apply_chat_template(self._messages, tokenize=False, add_generation_prompt=True)
            inputs = self._tokenizer([text], return_tensors="pt").to(self._model.device)
            length = inputs["input_ids"].shape[1]
            if length < self._longest:
                return {name: inputs[name] for name in ("input_ids", "attention_mask")}
            if len(self._messages) == 1:
                self.forget()
                raise RecipeError(
                    "the message is too long",
                    expected=f"fewer than {self._longest} tokens, the chat format included",
                    found=length,
                    action="shorten it, or start with --long-context dca",
                )
            del self._messages[:2]


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
    """Writes finished words to a stream instead of printing them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, out: TextIO) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._out = out

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self._out.write(text + ("\n" if stream_end else ""))
        self._out.flush()
