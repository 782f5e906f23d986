"""Does the exported folder talk as the model was trained to: the same rendered text, and an end of the turn.

A model whose template differs by a blank, or whose generation does not stop at the end of its turn, loads and
answers, and is quietly worse. So the folder is read as a stranger would read it and compared with the rendering of
training.
"""

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer, GenerationConfig

from qwenops.contracts.conversation import Message
from qwenops.generation.chat import render
from qwenops.model.checkpoints import IM_END


def _turns(*texts: str, system: str | None = None) -> tuple[Message, ...]:
    head: tuple[Message, ...] = () if system is None else ({"role": "system", "content": system},)
    roles = ("user", "assistant")
    return (*head, *({"role": roles[place % 2], "content": text} for place, text in enumerate(texts)))


CONVERSATIONS: tuple[tuple[Message, ...], ...] = (
    _turns("Hello"),
    _turns("Hello", system="Answer in one word."),
    _turns("Hello", system=""),
    _turns("What is 2 + 2?", "4", "And twice that?"),
    _turns("a", "b", "c", "d", "e", system="Count on."),
    _turns("  blanks around \n"),
    _turns("two\n\nlines\r\nand a tab\t", "  yes \n", "more"),
    _turns("{{ braces }} {% if %} <b>&amp;</b> 'quotes' \"both\" \\n"),
    _turns("多少钱？ Сколько? كم؟ 🙂", "é"),
    _turns(""),
)
"""Conversations of every shape a template can get wrong: with and without a system message, blanks, lines, scripts."""


def template_differences(folder: Path) -> list[tuple[str, str]]:
    """(rendering of training, rendering of the folder) where they differ, for prompts and for whole conversations."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = [
        (render(messages, for_generation=asks), _rendered(tokenizer, messages, asks))
        for messages in CONVERSATIONS
        for asks in (True, False)
    ]
    return [(expected, found) for expected, found in pairs if expected != found]


def stops_at_end_of_turn(folder: Path) -> bool:
    """Whether `generate` with the folder's own settings stops at the token that ends a turn."""
    end = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(IM_END)
    stops = GenerationConfig.from_pretrained(folder).eos_token_id
    return end in (stops if isinstance(stops, Sequence) else (stops,))


def _rendered(tokenizer: object, messages: Sequence[Message], asks: bool) -> str:
    try:
        return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=asks)  # type: ignore[attr-defined]
    except Exception as error:  # noqa: BLE001 - a template is a program of whoever wrote it
        return f"{type(error).__name__}: {error}"
