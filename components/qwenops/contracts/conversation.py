"""Conversations: the rows of every instruction and demonstration artifact (`demonstrations.jsonl`).

One JSON object a line, because people read and edit these files. A row without an assistant turn is an
instruction still to be answered; a row whose last message is the assistant's is a demonstration. The record is a
house choice after the fields the report's two data steps need: tags (4.1.1), strategy and verifier (4.1.2).
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from qwenops.errors import ContractError

DEMONSTRATIONS = "demonstrations.jsonl"
PROMPTS = "prompts.jsonl"  # instructions still to be answered, beside the demonstrations
Split = Literal["train", "heldout"]
Finish = Literal["stop", "length"]
"""How a sampled answer ended: by itself, or cut at the token limit."""
Message = Mapping[str, str]
Row = TypeVar("Row")

_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Conversation:
    """One instruction, with its answer when there is one.

    Attributes:
        id: Unique in its file.
        messages: {"role": "system|user|assistant", "content": text}; one optional system message first, then user
            and assistant in turns.
        tags: Tags of the ontology, or a task kind.
        source: Where the instruction came from: `verifiable`, `safety`, or a document's source.
        strategy: How the row was made: `seed`, `evolved`, `rejection_sampling`, `ranked`, ...
        verifier: What `tasks.verifiable.verify` needs to judge an answer, or None.
        score: Score a judge gave, or None.
        lang: ISO 639-1.
        split: Held-out rows are never trained on.
        parent_id: The row this one was made from, or None.
        provenance: Model, sampling settings, judge: whatever made the answer; empty for seed data.
        token_ids: Ids the answer was sampled as, its end token included; None where a text came from elsewhere. They
            are learnt while they spell the answer's text and the text is tokenized anew where they do not.
        finish: How a sampled answer ended; a cut one ("length") is learnt without an end. None counts as ended.
    """

    id: str
    messages: tuple[Message, ...]
    tags: tuple[str, ...] = ()
    source: str = ""
    strategy: str = "seed"
    verifier: Mapping[str, Any] | None = None
    score: float | None = None
    lang: str = "en"
    split: Split = "train"
    parent_id: str | None = None
    provenance: Mapping[str, Any] | None = None
    token_ids: tuple[int, ...] | None = None
    finish: Finish | None = None

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages a model is given: all but a final assistant turn."""
        return self.messages[:-1] if self.is_answered else self.messages

    @property
    def instruction(self) -> str:
        """The last user message."""
        return self.prompt[-1]["content"]

    @property
    def response(self) -> str:
        """The final assistant turn, or "" when there is none."""
        return self.messages[-1]["content"] if self.is_answered else ""

    @property
    def is_answered(self) -> bool:
        """Whether the last message is the assistant's."""
        return self.messages[-1]["role"] == "assistant"


def conversation_id(*parts: str) -> str:
    """A short id that depends on `parts` only (first 16 hex digits of their SHA-256)."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def ask(text: str) -> tuple[Message, ...]:
    """A prompt of one user message."""
    return ({"role": "user", "content": text},)


def answer(prompt: Iterable[Message], text: str) -> tuple[Message, ...]:
    """`prompt` with the assistant's `text` as its last message."""
    return (*prompt, {"role": "assistant", "content": text})


def check_messages(messages: Iterable[Message], where: str) -> None:
    """Refuse messages a chat template cannot render. A control token in a content is text like any other.

    Raises:
        ContractError: none at all, an unknown role, roles out of turn, or empty content.
    """
    turns = list(messages)
    if turns and turns[0].get("role") == "system":
        turns = turns[1:]
    roles = [turn.get("role") for turn in turns]
    if not turns or any(role != _ROLES[1 + index % 2] for index, role in enumerate(roles)):
        raise ContractError(
            f"{where} has roles out of turn",
            expected="[system] user assistant user ...",
            found=roles,
            action="mend the stage that wrote the row",
        )
    for message in messages:
        content = message.get("content")
        if not isinstance(content, str) or not content.strip():
            raise ContractError(f"{where} has an empty message", expected="text", found=repr(content))


def write_conversations(folder: Path, rows: Iterable[Conversation], name: str = DEMONSTRATIONS) -> int:
    """Check and write `rows` as JSON lines, in the order given; returns how many.

    Raises:
        ContractError: a row breaks the contract or an id occurs twice.
    """
    seen: set[str] = set()
    with (folder / name).open("w", encoding="utf-8") as stream:
        for row in rows:
            where = f"{name} row {row.id}"
            if row.id in seen:
                raise ContractError(f"{where} occurs twice", expected="unique ids", found=row.id)
            seen.add(row.id)
            check_messages(row.messages, where)
            stream.write(json.dumps(asdict(row), ensure_ascii=False, sort_keys=True) + "\n")
    return len(seen)


def read_conversations(folder: Path, split: Split | None = None, name: str = DEMONSTRATIONS) -> list[Conversation]:
    """Read and check the conversations of an artifact, those of one split if asked.

    Raises:
        ContractError: the file is missing, or a row breaks the contract; names the line.
    """
    rows: list[Conversation] = []
    for where, plain in read_json_lines(folder / name):
        try:
            listed = {"messages": tuple(plain["messages"]), "tags": tuple(plain.get("tags", ()))}
            row = decode_row(Conversation, plain, **listed, token_ids=read_ids(plain.get("token_ids")))
        except (KeyError, TypeError) as error:
            raise ContractError(
                f"{where} is not a conversation",
                expected=", ".join(f.name for f in fields(Conversation)),
                found=error,
                action="run the stage that wrote it again",
            ) from None
        check_messages(row.messages, where)
        if split is None or row.split == split:
            rows.append(row)
    return rows


def decode_row(kind: Callable[..., Row], plain: Mapping[str, Any], **read: Any) -> Row:
    """A row of class `kind` from its plain object, with the values in `read` in the place of the plain ones.

    Raises:
        TypeError: a field is missing or unknown.
    """
    return kind(**{**plain, **read})


def read_ids(plain: Any) -> tuple[int, ...] | None:
    """Token ids of a row, or None when it has none.

    Raises:
        TypeError: something else than a list of integers.
    """
    if plain is None:
        return None
    ids = cast("list[Any]", plain)
    if not isinstance(plain, list) or not all(isinstance(i, int) for i in ids):
        raise TypeError(f"token ids that are not a list of integers: {str(ids)[:80]}")
    return tuple(ids)


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, object) for each line of a JSON lines file.

    Raises:
        ContractError: the file cannot be read or a line is not a JSON object.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(
            f"cannot read {path}", expected="UTF-8 JSON lines", found=error, action="run the stage that writes it again"
        ) from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            plain = json.loads(line)
        except ValueError as error:
            raise ContractError(f"{path} line {number} is not JSON", expected="one object", found=error) from None
        if not isinstance(plain, dict):
            raise ContractError(f"{path} line {number} is not an object", expected="one object", found=line[:80])
        yield f"{path} line {number}", plain
