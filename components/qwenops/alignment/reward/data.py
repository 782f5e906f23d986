"""Which preference pairs the reward model learns from, and how evenly prompts are drawn over their tags."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from qwenops.contracts.conversation import Split, read_conversations
from qwenops.contracts.preference import Preference, read_preferences

_CAP_ROUNDS = 50


def read_pairs(folders: Sequence[Path], split: Split) -> list[Preference]:
    """The preferences of one split from several artifacts, each id once."""
    return list({row.id: row for folder in folders for row in read_preferences(folder, split)}.values())


def tags_of_prompts(folders: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    """Tags by last user message, from the demonstrations that lie beside the preferences."""
    tags: dict[str, tuple[str, ...]] = {}
    for folder in folders:
        tags |= {row.instruction: row.tags for row in read_conversations(folder) if row.tags}
    return tags


def tags_of(row: Preference, by_prompt: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """A pair's tags: those of its prompt, else its task kind, else its source."""
    found = by_prompt.get(row.prompt[-1]["content"])
    return found or ((str(row.verifier["kind"]),) if row.verifier else (row.source or row.strategy,))


def balanced_shares(tags: Sequence[Sequence[str]], cap: float) -> np.ndarray:
    """Probability of drawing each pair so that no tag crowds out the others.

    A pair weighs the mean of 1/sqrt(frequency) over its tags, times 1 + ln(number of tags) for its complexity; then
    tags whose share is above `cap` are scaled down, where more than 1/cap tags exist.

    Args:
        tags: Tags of each pair, at least one each.
        cap: Largest share of the draws one tag may take.

    Returns:
        float64 [pairs], sums to one.
    """
    frequency = Counter(tag for row in tags for tag in set(row))
    rarity = [np.mean([frequency[tag] ** -0.5 for tag in set(row)]) for row in tags]
    shares = np.array(rarity) * [1 + np.log(len(set(row))) for row in tags]
    shares /= shares.sum()
    limit = max(cap, 1.0 / len(frequency))
    members = {tag: np.array([tag in row for row in tags]) for tag in frequency}
    for _ in range(_CAP_ROUNDS):
        over = {tag: shares[mask].sum() for tag, mask in members.items() if shares[mask].sum() > limit * 1.001}
        if not over:
            break
        worst = max(over, key=lambda tag: over[tag])
        shares[members[worst]] *= limit / over[worst]
        shares /= shares.sum()
    return shares


def share_by_tag(tags: Sequence[Sequence[str]], shares: np.ndarray) -> dict[str, float]:
    """Share of the draws that each tag gets, largest first."""
    total: Counter[str] = Counter()
    for row, share in zip(tags, shares.tolist(), strict=True):
        for tag in set(row):
            total[tag] += share
    return dict(total.most_common())
