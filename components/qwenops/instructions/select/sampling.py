"""Complexity-first diverse sampling (InsTag, Algorithm 1), and what it is compared with."""

import random
from collections.abc import Iterable, Sequence

from qwenops.contracts.conversation import Conversation
from qwenops.instructions.select.scores import Scores


def select_diverse(rows: Sequence[Conversation], scores: Sequence[Scores], size: int) -> list[Conversation]:
    """Choose `size` rows: most tags first, and in each pass over the pool only rows that add a tag to that pass.

    Ties in the number of tags go to the richer, then to the smaller id, so the choice does not depend on input order.

    Args:
        rows: The pool.
        scores: Their scores, in the same order.
        size: Rows to choose; the whole pool when it is smaller.
    """
    order = sorted(range(len(rows)), key=lambda i: (-scores[i].complexity, -scores[i].richness, rows[i].id))
    chosen: list[Conversation] = []
    while order and len(chosen) < size:
        seen: set[str] = set()
        left: list[int] = []
        for i in order:
            if len(chosen) < size and not seen.issuperset(rows[i].tags):
                seen.update(rows[i].tags)
                chosen.append(rows[i])
            else:
                left.append(i)
        if len(left) == len(order):  # only rows without tags are left
            chosen += [rows[i] for i in left[: size - len(chosen)]]
            break
        order = left
    return chosen


def select_random(rows: Sequence[Conversation], size: int, seed: int) -> list[Conversation]:
    """A random set of the same size: the control."""
    return random.Random(seed).sample(list(rows), min(size, len(rows)))


def tag_coverage(chosen: Iterable[Conversation], pool: Iterable[Conversation]) -> float:
    """Share of the pool's tags that the chosen rows carry."""
    known = {tag for row in pool for tag in row.tags}
    return len({tag for row in chosen for tag in row.tags} & known) / max(len(known), 1)


def mean_complexity(rows: Sequence[Conversation]) -> float:
    """Mean number of tags."""
    return sum(len(row.tags) for row in rows) / max(len(rows), 1)
