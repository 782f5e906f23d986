"""Talk to an exported model on a terminal; the answer appears while it is made."""

from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from qwenops.delivery.chat_model import ChatModel, Decoding, LongContext, MessageTooLongError, open_chat_model
from qwenops.errors import RecipeError

_PROMPT, _FORGET = "you> ", "/new"
_LEAVE = ("/exit", "/quit")


class Session:
    """One conversation with a model; earlier turns stay in the prompt until they no longer fit.

    Args:
        model: Answers.
        system: Opens the conversation; empty leaves that to the chat template.
        decoding: How answers are drawn.
    """

    def __init__(self, model: ChatModel, system: str = "", decoding: Decoding = Decoding()) -> None:  # noqa: B008 - frozen
        self._model, self._decoding = model, decoding
        self._system = [{"role": "system", "content": system}] if system else []
        self._turns: list[dict[str, str]] = []

    def answer(self, question: str, out: TextIO) -> str:
        """Answer `question`, writing the words to `out` as they come.

        Raises:
            RecipeError: the question alone is longer than the model can read.
        """

        def write(text: str) -> None:
            out.write(text)
            out.flush()

        self._turns.append({"role": "user", "content": question})
        while len(self._turns) > 1 and self._model.num_tokens(self._system + self._turns) >= self._model.longest:
            del self._turns[:2]
        try:
            reply = self._model.reply(self._system + self._turns, self._decoding, write)
        except MessageTooLongError:
            self.forget()
            raise
        write("\n")
        self._turns.append({"role": "assistant", "content": reply.text})
        return reply.text

    def forget(self) -> None:
        """Start a new conversation."""
        self._turns.clear()


def chat(
    model_path: Path,
    long_context: LongContext,
    stream_in: TextIO,
    stream_out: TextIO,
    system: str = "",
    decoding: Decoding = Decoding(),  # noqa: B008 - frozen
) -> None:
    """Read questions from `stream_in` and answer them on `stream_out` until the input ends.

    Questions that no person types at a terminal are shown before their answers.

    Raises:
        RecipeError: `model_path` is no model folder, or its tokenizer has no chat template.
    """
    session = Session(open_chat_model(model_path, long_context), system, decoding)
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


def _questions(stream_in: TextIO, stream_out: TextIO) -> Iterator[str]:
    is_typed = stream_in.isatty()
    while True:
        stream_out.write(_PROMPT)
        stream_out.flush()
        line = stream_in.readline()
        question = line.strip()
        if not line or question in _LEAVE:
            stream_out.write("\n")
            return
        if not is_typed:
            stream_out.write(f"{question}\n")
        if question:
            yield question
