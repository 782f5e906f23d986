"""How much contamination gets through? Hide evaluation items in passages of the corpus and look for them.

The items are disguised as copies on the web are: other case, other punctuation, other line breaks, and text before
and after. The passages are looked at beside the corpus and never written.
"""

import random
from collections.abc import Sequence

from qwenops.tasks.overlap import Leak, OverlapIndex, words

_PASSAGE_CHARACTERS = 1500


def planted_removed(
    index: OverlapIndex,
    leaks: Sequence[Leak],
    passages: Sequence[str],
    count: int,
    least_words: int,
    seed: int,
) -> tuple[int, int]:
    """Hide up to `count` leaks (questions, answers, whole items) in passages.

    Args:
        index: What decontamination uses.
        leaks: What may leak.
        passages: Texts to hide them in; may be empty.
        count: Most leaks to plant.
        least_words: Leaks with fewer words are beyond the rule and not planted.
        seed: Seeds the choice.

    Returns:
        Planted leaks, and how many of them were found as their item.
    """
    rng = random.Random(seed)
    able = [leak for leak in leaks if len(words(leak.text)) >= least_words]
    chosen = rng.sample(able, min(count, len(able)))
    found = 0
    for leak in chosen:
        before, after = (rng.choice(passages)[:_PASSAGE_CHARACTERS] if passages else "" for _ in range(2))
        matches = index.matches(f"{before}\n{disguise(leak.text, rng)}\n{after}")
        found += any((match.task, match.item) == (leak.task, leak.item) for match in matches)
    return len(chosen), found


def disguise(text: str, rng: random.Random) -> str:
    """The same words with other case, punctuation and breaks."""
    how = rng.choice((str.upper, str.title, str.lower))
    gaps = (" ", "  ", ", ", "\n", " - ")
    return "".join(how(piece) + rng.choice(gaps) for piece in text.split())
