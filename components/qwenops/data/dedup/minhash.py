"""MinHash signatures and LSH buckets, vectorised over a document's shingles.

A shingle is a hashed run of words; a signature keeps the least value of each of `bands * rows` random linear
maps of the shingles modulo 2**64; a band key mixes `rows` of them. Two documents of similarity s share a band with
probability 1 - (1 - s**rows)**bands. The keys are functions of the text alone, so nothing here depends on
how documents are split into parts.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from qwenops.data.dedup.config import DedupConfig
from qwenops.tasks.overlap import Hashes, gram_hashes, is_unspaced, mixed, words

_FAMILY_SEED = 20_240_607
# Shingles times hash functions held at once: 32 MB of uint64.
_BLOCK_SHINGLES = 1 << 14


def shingles(text: str, config: DedupConfig) -> Hashes:
    """Distinct shingle hashes of a text, sorted: uint64 [S], S >= 1; a short text is one shingle."""
    tokens = words(text)
    if not tokens:  # punctuation only: compare the text as it is
        return np.array([xxhash.xxh3_64_intdigest(text.encode())], dtype=np.uint64)
    length = config.character_shingle if is_unspaced(tokens) else config.word_shingle
    return np.unique(gram_hashes(tokens, min(length, len(tokens))))


def exact_key(text: str) -> str:
    """Digest of the normalised text: equal for texts that differ in case, spaces and punctuation only."""
    normal = " ".join(words(text)) or unicodedata.normalize("NFC", text)
    return xxhash.xxh3_128_hexdigest(normal.encode())


def signature(found: Hashes, hashes: int) -> Hashes:
    """MinHash signature: uint64 [hashes]; the share of equal places estimates the Jaccard similarity."""
    multipliers, offsets = _family(hashes)
    least = np.full(hashes, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(found), _BLOCK_SHINGLES):
        block = found[start : start + _BLOCK_SHINGLES]
        np.minimum(least, (block[None, :] * multipliers[:, None] + offsets[:, None]).min(axis=1), out=least)
    return least


def band_keys(texts: Sequence[str], config: DedupConfig) -> NDArray[np.uint64]:
    """LSH keys of documents: uint64 [len(texts), bands]."""
    keys = np.zeros((len(texts), config.bands), dtype=np.uint64)
    for number, text in enumerate(texts):
        rows = signature(shingles(text, config), config.hashes).reshape(config.bands, config.rows)
        folded = np.zeros(config.bands, dtype=np.uint64)
        for row in rows.T:
            folded = mixed(folded ^ row)
        keys[number] = folded
    return keys


def jaccard(left: Hashes, right: Hashes) -> float:
    """Exact Jaccard similarity of two sorted sets of distinct shingles."""
    common = len(np.intersect1d(left, right, assume_unique=True))
    return common / (len(left) + len(right) - common)


def _family(hashes: int) -> tuple[Hashes, Hashes]:
    rng = np.random.default_rng(_FAMILY_SEED)
    drawn = rng.integers(0, np.iinfo(np.uint64).max, size=(2, hashes), dtype=np.uint64, endpoint=True)
    return drawn[0] | np.uint64(1), drawn[1]
