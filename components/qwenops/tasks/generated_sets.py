"""Evaluation sets the project brings itself, so that a run without any official file still measures something.

`continuation`: 80 short texts written for this project (English, Python, five other languages) whose true ending stands
among the endings of three other texts of the same subject; chance is 0.25. `verifiable`: held-out prompts of the
task families, answered by generation. Both are house choices; the report has no counterpart for models this small.
"""

import json
from collections.abc import Sequence
from importlib.resources import files

from qwenops.contracts.conversation import Split
from qwenops.tasks.evalitem import EvalItem
from qwenops.tasks.verifiable import generate

_DISTRACTORS = 3
# Prime steps spread the distractors over the subject; no two fall on one place for groups of 8, 16 or 24.
_STRIDES = (1, 3, 5)


def continuation_items() -> list[EvalItem]:
    """The continuation set; an item's right option stands at a place fixed by its number."""
    rows = json.loads(files("qwenops.tasks").joinpath("continuation.json").read_text(encoding="utf-8"))
    subjects: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        subjects.setdefault(row["subject"], []).append(row)
    return [_continuation(group, number) for group in subjects.values() for number in range(len(group))]


def verifiable_items(
    kinds: Sequence[str], per_kind: int, digits: tuple[int, int], seed: int, split: Split = "heldout"
) -> list[EvalItem]:
    """`per_kind` prompts of each task family as items; from the held-out half unless `split` says otherwise."""
    return [
        EvalItem(
            id=f"verifiable/{row.id}",
            task="verifiable",
            subject=kind,
            prompt=row.instruction,
            text=row.instruction,
            scorer="verifier",
            gold=row.response,
            target="\n" + row.response,
            facts={"verifier": row.verifier},
        )
        for kind in kinds
        for row in generate(kind, per_kind, seed, split, min_digits=digits[0], max_digits=digits[1])
    ]


def _continuation(group: list[dict[str, str]], number: int) -> EvalItem:
    row, size = group[number], len(group)
    others = [group[(number + stride) % size]["ending"] for stride in _STRIDES[:_DISTRACTORS]]
    place = number % (_DISTRACTORS + 1)
    options = [*others[:place], row["ending"], *others[place:]]
    return EvalItem(
        id=f"continuation/{row['subject']}/{number}",
        task="continuation",
        subject=row["subject"],
        prompt=row["context"],
        text=row["context"] + row["ending"],
        scorer="choice",
        gold=str(place),
        target=row["ending"],
        options=tuple(options),
        lang=row["lang"],
    )
