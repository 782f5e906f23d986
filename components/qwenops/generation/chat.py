"""ChatML: messages to the token ids or the text that a model reads, and sampled ids back to text.

Scaffolding is laid by token id and contents are tokenized with control tokens split into ordinary pieces, so that no
content, whoever wrote it, can close a turn or open one. Rendered text is for people, and for servers that tokenize by
themselves: byte for byte what the tokenizer's chat template gives (a test compares them), contents defused.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from qwenops.contracts.conversation import Message
from qwenops.contracts.tokens import CONTROL_TOKENS, IM_END, IM_START, encode_texts
from qwenops.generation.engine import Prompt

DEFAULT_SYSTEM = "You are a helpful assistant."

_REASONING = re.compile(r"^\s*(?:<think>)?(?P<reasoning>.*?)(?:</think>|\Z)\s*", re.DOTALL)
_CONTROL = re.compile("|".join(rf"<\|({token[2:-2]})\|>" for token in CONTROL_TOKENS))


def with_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    """`messages`, opened by the default system message when they do not bring their own."""
    if messages and messages[0]["role"] == "system":
        return tuple(messages)
    return ({"role": "system", "content": DEFAULT_SYSTEM}, *messages)


def encode_prompts(tokenizer: Any, prompts: Iterable[Prompt]) -> list[list[int]]:
    """Token ids of prompts; messages get the default system message and end with the assistant's header.

    A content is tokenized apart from what stands around it, as an answer is when it is sampled.
    """
    start, end = (tokenizer.convert_tokens_to_ids(token) for token in (IM_START, IM_END))
    split = [[prompt] if isinstance(prompt, str) else _pieces(prompt, start, end) for prompt in prompts]
    texts = list(dict.fromkeys(piece for pieces in split for piece in pieces if isinstance(piece, str)))
    ids = dict(zip(texts, encode_texts(tokenizer, texts), strict=True))
    return [[i for piece in row for i in (ids[piece] if isinstance(piece, str) else (piece,))] for row in split]


def _pieces(messages: Sequence[Message], start: int, end: int) -> list[int | str]:
    turns = [(start, f"{turn['role']}\n", turn["content"], end, "\n") for turn in with_system(messages)]
    return [*(piece for turn in turns for piece in turn), start, "assistant\n"]


def decode(tokenizer: Any, rows: Iterable[Sequence[int]]) -> list[str]:
    """Texts of sampled ids without control tokens; a vocabulary's other special names stay in the text."""
    control = control_ids(tokenizer)
    kept = [[i for i in row if i not in control] for row in rows]
    return tokenizer.batch_decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def control_ids(tokenizer: Any) -> dict[int, str]:
    """The control tokens that a tokenizer has, by id."""
    ids = {tokenizer.convert_tokens_to_ids(token): token for token in CONTROL_TOKENS}
    # An unknown token gets the id of the unknown, which is `<|endoftext|>` itself in some vocabularies.
    return {i: token for i, token in ids.items() if i is not None and tokenizer.convert_ids_to_tokens(i) == token}


def render(prompt: Prompt, *, for_generation: bool = True) -> str:
    """The text of a prompt.

    Args:
        prompt: Messages as ChatML, the default system message put first where they do not bring their own; a text as
            it is. Both are defused.
        for_generation: End messages with the assistant's header, so that the model writes the next turn.
    """
    if isinstance(prompt, str):
        return escape_control_tokens(prompt)
    turns = with_system(prompt)
    text = "".join(f"{IM_START}{turn['role']}\n{escape_control_tokens(turn['content'])}{IM_END}\n" for turn in turns)
    return text + (f"{IM_START}assistant\n" if for_generation else "")


def escape_control_tokens(text: str) -> str:
    """`text` with its control tokens made harmless, readable as before."""
    return _CONTROL.sub(lambda found: f"<| {found[0][2:-2]} |>", text)


def split_reasoning(text: str) -> tuple[str, str]:
    """The reasoning that a model put before its answer, "" when there is none, and the answer.

    It ends with `</think>`; some chat templates open it in the prompt, so that the answer holds no `<think>`. A
    reasoning that was cut has no answer after it.
    """
    if not text.lstrip().startswith("<think>") and ("</think>" not in text or "<think>" in text):
        return "", text
    found = _REASONING.match(text)
    return (found["reasoning"].strip(), text[found.end() :]) if found else ("", text)
