"""Make the rows that ranking and synthesis write: demonstrations and preference pairs, with their provenance."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qwenops.contracts.conversation import Conversation, Finish, Split, answer, conversation_id
from qwenops.contracts.preference import Preference
from qwenops.generation.engine import Sample


def pair_split(row: Conversation, heldout_share: float) -> Split:
    """The split of everything made from one instruction, by a hash of its id, so that its pairs never part."""
    return "heldout" if int(conversation_id("pairs", row.id)[:8], 16) / 2**32 < heldout_share else "train"


def make_demonstration(
    row: Conversation, said: Sample | str, *, strategy: str, provenance: Mapping[str, Any], score: float = 1.0
) -> Conversation:
    """The instruction of `row` answered with what was sampled, or with a text from elsewhere."""
    text, token_ids, finish = _parts(said)
    return replace(
        row,
        id=conversation_id(strategy, row.id, text),
        messages=answer(row.prompt, text),
        token_ids=token_ids,
        finish=finish,
        strategy=strategy,
        score=score,
        parent_id=row.id,
        provenance={**(row.provenance or {}), **provenance},
    )


def make_pair(
    row: Conversation,
    chosen: Sample | str,
    rejected: Sample | str,
    *,
    strategy: str,
    judge: str,
    split: Split,
    provenance: Mapping[str, Any],
    margin: float = 1.0,
) -> Preference:
    """A comparison of two answers to the instruction of `row`, sampled ones or texts from elsewhere."""
    better, better_ids, better_finish = _parts(chosen)
    worse, worse_ids, worse_finish = _parts(rejected)
    return Preference(
        id=conversation_id(strategy, row.id, better, worse),
        prompt=row.prompt,
        chosen=better,
        rejected=worse,
        source=row.source,
        strategy=strategy,
        judge=judge,
        margin=margin,
        lang=row.lang,
        split=split,
        verifier=row.verifier,
        provenance=provenance,
        chosen_ids=better_ids,
        rejected_ids=worse_ids,
        chosen_finish=better_finish,
        rejected_finish=worse_finish,
    )


def _parts(said: Sample | str) -> tuple[str, tuple[int, ...] | None, Finish | None]:
    if isinstance(said, str):
        return said, None, None
    return said.text, said.token_ids, "stop" if said.is_whole else "length"
