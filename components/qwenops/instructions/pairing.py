"""Make the rows that ranking and synthesis write: demonstrations and preference pairs, with their provenance."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qwenops.contracts.conversation import Conversation, Split, answer, conversation_id
from qwenops.contracts.preference import Preference


def pair_split(row: Conversation, heldout_share: float) -> Split:
    """The split of everything made from one instruction, by a hash of its id, so that its pairs never part."""
    return "heldout" if int(conversation_id("pairs", row.id)[:8], 16) / 2**32 < heldout_share else "train"


def make_demonstration(
    row: Conversation, text: str, *, strategy: str, provenance: Mapping[str, Any], score: float = 1.0
) -> Conversation:
    """The instruction of `row` answered with `text`."""
    return replace(
        row,
        id=conversation_id(strategy, row.id, text),
        messages=answer(row.prompt, text),
        strategy=strategy,
        score=score,
        parent_id=row.id,
        provenance={**(row.provenance or {}), **provenance},
    )


def make_pair(
    row: Conversation,
    chosen: str,
    rejected: str,
    *,
    strategy: str,
    judge: str,
    split: Split,
    provenance: Mapping[str, Any],
    margin: float = 1.0,
) -> Preference:
    """A comparison of two answers to the instruction of `row`."""
    return Preference(
        id=conversation_id(strategy, row.id, chosen, rejected),
        prompt=row.prompt,
        chosen=chosen,
        rejected=rejected,
        source=row.source,
        strategy=strategy,
        judge=judge,
        margin=margin,
        lang=row.lang,
        split=split,
        verifier=row.verifier,
        provenance=provenance,
    )
