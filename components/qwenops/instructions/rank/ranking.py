"""Rankings to preference pairs and demonstrations; agreement between those who rank.

A ranking is one rank per response, 1 the best; equal ranks are ties and make no pair.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Literal

from scipy.stats import kendalltau


def ranks_from_grades(grades: Sequence[float]) -> list[int]:
    """Ranks of grades, best first; equal grades share a rank."""
    levels = sorted(set(grades), reverse=True)
    return [levels.index(grade) + 1 for grade in grades]


def pairs_of_ranking(ranks: Sequence[float], which: Literal["all", "best_vs_rest"]) -> list[tuple[int, int]]:
    """Places (better, worse) that a ranking orders: a > b > c gives (a, b), (a, c), (b, c)."""
    pairs = [
        (i, j) if ranks[i] < ranks[j] else (j, i) for i, j in combinations(range(len(ranks)), 2) if ranks[i] != ranks[j]
    ]
    if which == "all":
        return pairs
    best = min(ranks)
    return [(i, j) for i, j in pairs if ranks[i] == best]


def mean_ranks(rankings: Sequence[Sequence[float]]) -> list[float]:
    """Mean rank of each response over those who ranked it."""
    return [sum(column) / len(column) for column in zip(*rankings, strict=True)]


def agreement(left: Sequence[Sequence[float]], right: Sequence[Sequence[float]]) -> float | None:
    """Mean Kendall tau-b over instructions where both judges order something; None when there is none."""
    both = [(a, b) for a, b in zip(left, right, strict=True) if len(set(a)) > 1 and len(set(b)) > 1]
    found: list[Any] = [kendalltau(a, b) for a, b in both]
    taus = [float(result.statistic) for result in found]
    return sum(taus) / len(taus) if taus else None
