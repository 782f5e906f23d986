"""ChatML: messages to the text a model reads, and back.

Byte for byte what the tokenizer's chat template gives (a test compares them); written out here because data stages and
engines must render text without loading a tokenizer.
"""

import re
from collections.abc import Iterable, Sequence

from qwenops.contracts.conversation import Message
from qwenops.errors import ContractError

DEFAULT_SYSTEM = "You are a helpful assistant."
START, END = "<|im_start|>", "<|im_end|>"

_CONTROL = re.compile(r"<\|(endoftext|im_start|im_end)\|>")
_TURN = re.compile(rf"{re.escape(START)}(\w+)\n(.*?){re.escape(END)}\n", re.DOTALL)


def render(messages: Sequence[Message], *, for_generation: bool = True) -> str:
    """Render messages as ChatML.

    Args:
        messages: Turns; the default system message is put first when they do not bring their own.
        for_generation: End with the assistant's header, so that the model writes the next turn.

    Raises:
        ContractError: a message holds a control token, which would close or open a turn.
    """
    if not messages or messages[0]["role"] != "system":
        messages = ({"role": "system", "content": DEFAULT_SYSTEM}, *messages)
    for message in messages:
        if _CONTROL.search(message["content"]):
            raise ContractError(
                "a message holds a control token",
                expected="text without <|im_start|>, <|im_end|>, <|endoftext|>",
                found=message["content"][:80],
                action="pass the text through `defuse` first",
            )
    text = "".join(f"{START}{message['role']}\n{message['content']}{END}\n" for message in messages)
    return text + (f"{START}assistant\n" if for_generation else "")


def render_all(prompts: Iterable[Sequence[Message]]) -> list[str]:
    """Render many prompts for generation."""
    return [render(messages) for messages in prompts]


def parse(text: str) -> list[dict[str, str]]:
    """The messages of rendered text, without an unfinished assistant header."""
    return [{"role": role, "content": content} for role, content in _TURN.findall(text)]


def defuse(text: str) -> str:
    """`text` with its control tokens made harmless, readable as before."""
    return _CONTROL.sub(r"<| \1 |>", text)
