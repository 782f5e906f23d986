"""How well does it find duplicates? Plant some whose similarity is known, and look for them with the same code.

Sampled documents are perturbed word by word until their exact Jaccard similarity to the original lies in a wanted
band: near copies at or above the threshold, near misses clearly below it. They are searched for beside the
corpus, never in it, so no planted text can reach the output.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from qwenops.data.dedup.clusters import candidate_pairs
from qwenops.data.dedup.config import DedupConfig
from qwenops.data.dedup.minhash import band_keys, jaccard, shingles
from qwenops.tasks.overlap import is_unspaced, words

_LEAST_SHINGLES = 40
_MISS_BELOW = 0.1
_MISS_SPREAD = 0.2
# A passage is planted rather than a whole document: similarity is what counts, and long texts take long to perturb.
_PASSAGE_CHARACTERS = 1500


@dataclass(frozen=True)
class PlantedScore:
    """What the search found of the planted pairs.

    Attributes:
        copies: Planted pairs with exact Jaccard at or above the threshold.
        misses: Planted pairs below it.
        recall: Share of the copies that were found.
        precision: Share of found planted pairs that are copies; 1 when nothing was found.
        candidate_precision: Same before verification by exact Jaccard: what the bands alone would give.
    """

    copies: int
    misses: int
    recall: float
    precision: float
    candidate_precision: float


def plant_and_score(texts: Sequence[str], config: DedupConfig, seed: int) -> PlantedScore:
    """Perturb up to `config.planted_documents` of `texts` and measure the search on them.

    Half become near copies with similarities from the threshold up to halfway to 1, half near misses.
    """
    pairs = _plant(texts, config, random.Random(seed))
    keys = band_keys([text for pair in pairs for text in pair], config)
    candidates = set(map(tuple, candidate_pairs(keys.T).tolist()))
    similar = [jaccard(shingles(a, config), shingles(b, config)) for a, b in pairs]
    is_copy = [value >= config.jaccard for value in similar]
    candidate = [(2 * number, 2 * number + 1) in candidates for number in range(len(pairs))]
    found = [flag and value >= config.jaccard for flag, value in zip(candidate, similar, strict=True)]
    return PlantedScore(
        copies=sum(is_copy),
        misses=len(pairs) - sum(is_copy),
        recall=_share(found, is_copy),
        precision=_share(is_copy, found),
        candidate_precision=_share(is_copy, candidate),
    )


def perturb(text: str, low: float, high: float, config: DedupConfig, rng: random.Random) -> str | None:
    """Replace, drop or insert words of `text` until its Jaccard similarity lies in [low, high); None if it jumps over.

    Words are edited as they stand, so case and punctuation stay; in scripts without spaces characters are edited.
    """
    original = shingles(text, config)
    glue = "" if is_unspaced(words(text)) else " "
    pieces = text.split() if glue else list(text)
    for edit in range(len(pieces)):
        place = rng.randrange(len(pieces))
        replaced = 0 if edit % 3 == 2 else 1
        inserted = [] if edit % 3 == 1 else [rng.choice(pieces)[::-1]]
        pieces[place : place + replaced] = inserted
        copy = glue.join(pieces)
        similarity = jaccard(original, shingles(copy, config))
        if similarity < high:
            return copy if similarity >= low else None
    return None


def _plant(texts: Sequence[str], config: DedupConfig, rng: random.Random) -> list[tuple[str, str]]:
    passages = [text[:_PASSAGE_CHARACTERS] for text in rng.sample(list(texts), len(texts))]
    long_enough = (passage for passage in passages if len(shingles(passage, config)) >= _LEAST_SHINGLES)
    chosen = list(itertools.islice(long_enough, config.planted_documents))
    pairs: list[tuple[str, str]] = []
    for number, text in enumerate(chosen):
        if number % 2 == 0:  # as often just above the threshold as well above it
            low = config.jaccard
            high = low + (1 - low) * rng.uniform(0.1, 0.5)
        else:
            high = config.jaccard - _MISS_BELOW
            low = high - _MISS_SPREAD
        copy = perturb(text, low, high, config, rng)
        if copy is not None:
            pairs.append((text, copy))
    return pairs


def _share(hits: Sequence[bool], among: Sequence[bool]) -> float:
    total = sum(among)
    return sum(hit for hit, flag in zip(hits, among, strict=True) if flag) / total if total else 1.0
