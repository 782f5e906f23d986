"""Which preference pairs the reward model learns from, and how evenly prompts are drawn over their tags."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from qwenops.contracts.conversation import Split, read_conversations
from qwenops.contracts.preference import Preference, read_preferences

_CAP_ROUNDS = 50
_TELLING_SHARE = 0.5


def read_pairs(folders: Sequence[Path], split: Split) -> list[Preference]:
    """The preferences of one split from several artifacts, each id once."""
    return list({row.id: row for folder in folders for row in read_preferences(folder, split)}.values())


def prompt_tags(folders: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    """Tags by last user message, from the demonstrations that lie beside the preferences."""
    tags: dict[str, tuple[str, ...]] = {}
    for folder in folders:
        tags |= {row.instruction: row.tags for row in read_conversations(folder) if row.tags}
    return tags


def pair_tags(row: Preference, by_prompt: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """A pair's tags: those of its prompt, else its task kind, else its source."""
    found = by_prompt.get(row.prompt[-1]["content"])
    return found or ((str(row.verifier["kind"]),) if row.verifier else (row.source or row.strategy,))


def balanced_shares(tags: Sequence[Sequence[str]], cap: float, most_repeats: float) -> np.ndarray:
    """Probability of drawing each pair so that no tag crowds out the others.

    A pair weighs the mean of 1/sqrt(frequency) over its telling tags, times 1 + ln(their number) for its complexity,
    and at most `most_repeats` times the mean pair, because a rare pair drawn over and over is learnt by heart. Then
    tags whose share is above `cap` are scaled down. A tag that more than half of the pairs carry tells nothing apart
    and is left out, unless a pair has no other.

    Args:
        tags: Tags of each pair, at least one each.
        cap: Largest share of the draws one telling tag may take; no less than its even share.
        most_repeats: Largest weight of a pair before the cap, in mean weights.

    Returns:
        float64 [pairs], sums to one.
    """
    frequency = Counter(tag for row in tags for tag in set(row))
    telling = {tag for tag, count in frequency.items() if count <= _TELLING_SHARE * len(tags)} or set(frequency)
    used = [set(row) & telling or set(row) for row in tags]
    shares = np.array([np.mean([frequency[tag] ** -0.5 for tag in row]) * (1 + np.log(len(row))) for row in used])
    shares = np.minimum(shares, most_repeats * shares.mean())
    shares /= shares.sum()
    limit = max(cap, 1.0 / len(telling))
    members = {tag: np.array([tag in row for row in used]) for tag in telling}
    for _ in range(_CAP_ROUNDS):
        over = {tag: total for tag, mask in members.items() if (total := shares[mask].sum()) > limit * 1.001}
        if not over:
            break
        worst = max(over, key=lambda tag: over[tag])
        rest = (1 - limit) / max(1 - over[worst], 1e-12)
        shares = np.where(members[worst], shares * limit / over[worst], shares * rest)
        shares /= shares.sum()
    return shares


def share_by_tag(tags: Sequence[Sequence[str]], shares: np.ndarray) -> dict[str, float]:
    """Share of the draws that each tag gets, largest first."""
    total: Counter[str] = Counter()
    for row, share in zip(tags, shares.tolist(), strict=True):
        for tag in set(row):
            total[tag] += share
    return dict(total.most_common())
