"""Small statistics shared by the evaluation stages: intervals for shares and tests between two models.

Written out here instead of taken from a library: three formulas of a few lines each, and an evaluation should
not need scipy for them.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Share:
    """A share of successes with its 95 % Wilson interval.

    Attributes:
        value: Successes over count; 0 when there is nothing to count.
        low: Lower end of the interval.
        high: Upper end.
        count: Trials.
    """

    value: float
    low: float
    high: float
    count: int

    def as_plain(self) -> dict[str, float]:
        """The share as JSON data."""
        return asdict(self)


def wilson(successes: float, count: int) -> Share:
    """Share with its 95 % Wilson score interval, which stays inside [0, 1] and is not empty at 0 or 1.

    Args:
        successes: Number of successes; may be fractional where items carry partial scores.
        count: Number of trials; 0 gives the interval [0, 1].
    """
    if count == 0:
        return Share(0.0, 0.0, 1.0, 0)
    p, z2 = successes / count, _Z95**2
    centre = (p + z2 / (2 * count)) / (1 + z2 / count)
    reach = _Z95 / (1 + z2 / count) * math.sqrt(p * (1 - p) / count + z2 / (4 * count * count))
    return Share(p, max(0.0, centre - reach), min(1.0, centre + reach), count)


def two_proportion_p(successes_a: int, count_a: int, successes_b: int, count_b: int) -> float:
    """Two-sided p-value of the pooled two-proportion z-test; 1 when either side is empty or nothing varies."""
    if count_a == 0 or count_b == 0:
        return 1.0
    pooled = (successes_a + successes_b) / (count_a + count_b)
    variance = pooled * (1 - pooled) * (1 / count_a + 1 / count_b)
    if variance == 0:
        return 1.0
    z = abs(successes_a / count_a - successes_b / count_b) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2))


def mcnemar_p(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Exact two-sided McNemar p-value of two models on the same items, from the items where they disagree."""
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    changed = only_first + only_second
    if changed == 0:
        return 1.0
    tail = sum(math.comb(changed, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**changed)
