"""Preferences: one prompt, a chosen and a rejected response (`preferences.jsonl`).

The report's P = {(x, y+, y-)} (section 4). Both responses belong to the same prompt by construction, which is why
the row holds the prompt once. A rejected response may be a deviated (unsafe) one and is never used as a demonstration.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from qwenops.contracts.conversation import (
    Finish,
    Message,
    Split,
    check_messages,
    decode_row,
    read_ids,
    read_json_lines,
)
from qwenops.errors import ContractError

PREFERENCES = "preferences.jsonl"


@dataclass(frozen=True)
class Preference:
    """One comparison.

    Attributes:
        id: Unique in its file.
        prompt: Messages; the last is the user's.
        chosen: The better response.
        rejected: The worse response; differs from `chosen`.
        source: Source of the prompt, as in `Conversation`.
        strategy: How the pair was made: `ranked`, `rejection_sampling`, `execution_feedback`, `constitution`, ...
        judge: Who decided: `person:<name>`, `machine:<what>`.
        margin: How clearly, in the judge's own unit; positive.
        lang: ISO 639-1.
        split: Held-out pairs are never trained on.
        verifier: As in `Conversation`.
        provenance: Model and sampling settings behind the responses.
        chosen_ids: Ids the better response was sampled as, its end token included; see `Conversation.token_ids`.
        rejected_ids: Those of the worse one.
        chosen_finish: How the better response ended; None counts as ended.
        rejected_finish: How the worse one ended; a cut response ("length") may be rejected and never chosen.
    """

    id: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    source: str
    strategy: str
    judge: str
    margin: float = 1.0
    lang: str = "en"
    split: Split = "train"
    verifier: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] | None = None
    chosen_ids: tuple[int, ...] | None = None
    rejected_ids: tuple[int, ...] | None = None
    chosen_finish: Finish | None = None
    rejected_finish: Finish | None = None


def check_preference(row: Preference, where: str) -> None:
    """Refuse a pair that teaches nothing or cannot be rendered.

    Raises:
        ContractError: bad prompt, equal or empty responses, a chosen one that was cut, margin not positive.
    """
    check_messages(row.prompt, where)
    if row.prompt[-1]["role"] != "user":
        raise ContractError(f"{where} has no question", expected="a prompt that ends with the user", found=row.prompt)
    if row.chosen == row.rejected:
        raise ContractError(f"{where} compares a response with itself", expected="two texts", found=row.chosen[:80])
    if not row.chosen.strip() or not row.margin > 0:
        raise ContractError(f"{where} has no chosen text or no margin", expected="text, margin > 0", found=row)
    if row.chosen_finish == "length":
        raise ContractError(
            f"{where} prefers a response that was cut",
            expected="a chosen response that ended by itself",
            found=row.chosen[-80:],
            action="drop the pair where it is made: a cut response can be the rejected one only",
        )


def write_preferences(folder: Path, rows: Iterable[Preference], name: str = PREFERENCES) -> int:
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
            check_preference(row, where)
            stream.write(json.dumps(asdict(row), ensure_ascii=False, sort_keys=True) + "\n")
    return len(seen)


def read_preferences(folder: Path, split: Split | None = None, name: str = PREFERENCES) -> list[Preference]:
    """Read and check the pairs of an artifact, those of one split if asked.

    Raises:
        ContractError: the file is missing, or a row breaks the contract; names the line.
    """
    rows: list[Preference] = []
    for where, plain in read_json_lines(folder / name):
        try:
            ids = {name: read_ids(plain.get(name)) for name in ("chosen_ids", "rejected_ids")}
            row = decode_row(Preference, plain, **ids, prompt=tuple(plain["prompt"]))
        except (KeyError, TypeError) as error:
            raise ContractError(
                f"{where} is not a preference",
                expected=", ".join(f.name for f in fields(Preference)),
                found=error,
                action="run the stage that wrote it again",
            ) from None
        check_preference(row, where)
        if split is None or row.split == split:
            rows.append(row)
    return rows
