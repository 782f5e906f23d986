"""MinHash signatures and LSH buckets.

A signature keeps the least value of each of `bands * rows` random linear maps of a text's shingles, modulo 2**32: half
the width of a 64-bit family and four times as fast in numpy, and two shingles of a text collide with probability
1e-5. A band key mixes `rows` of them. Two documents of similarity s share a band with probability
1 - (1 - s**rows)**bands. The keys are functions of the text alone.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qwenops.data.characters import Hashes, mix_bits
from qwenops.data.dedup.config import DedupConfig
from qwenops.data.dedup.shingles import Shingles, in_batches, shingle

Signatures = NDArray[np.uint32]

_FAMILY_SEED = 20_240_607
# Shingles times hash functions held at once: they stay in a core's cache.
_BLOCK_SHINGLES = 1 << 10


def shingles(text: str, config: DedupConfig) -> Hashes:
    """Distinct shingle hashes of a text, sorted: uint64 [S], S >= 1."""
    return np.unique(shingle([text], config).hashes)


def exact_key(text: str, config: DedupConfig) -> bytes:
    """Digest of the normalised text: equal for texts that differ in case, spaces and punctuation only."""
    return shingle([text], config).exact.tobytes()


def signatures(found: Shingles, hashes: int) -> Signatures:
    """MinHash signatures: uint32 [texts, hashes]; the share of equal places estimates the Jaccard similarity."""
    multipliers, offsets = _family(hashes)
    values = (found.hashes >> np.uint64(32)).astype(np.uint32)
    room = np.empty(hashes * _BLOCK_SHINGLES, dtype=np.uint32)
    least = np.full((len(found.starts) - 1, hashes), np.iinfo(np.uint32).max, dtype=np.uint32)
    for row, begin, end in zip(least, found.starts[:-1].tolist(), found.starts[1:].tolist(), strict=True):
        for start in range(begin, end, _BLOCK_SHINGLES):
            block = values[start : min(start + _BLOCK_SHINGLES, end)]
            mapped = room[: hashes * len(block)].reshape(hashes, len(block))
            np.multiply(multipliers[:, None], block, out=mapped)
            mapped += offsets[:, None]
            np.minimum(row, mapped.min(axis=1), out=row)
    return least


def band_keys(texts: Sequence[str], config: DedupConfig) -> NDArray[np.uint64]:
    """LSH keys of documents: uint64 [len(texts), bands]."""
    keys = [keys_of(shingle(batch, config), config) for batch in in_batches(texts)]
    return np.concatenate(keys) if keys else np.zeros((0, config.bands), dtype=np.uint64)


def keys_of(found: Shingles, config: DedupConfig) -> NDArray[np.uint64]:
    """LSH keys of shingled documents: uint64 [texts, bands]."""
    rows = signatures(found, config.hashes).reshape(-1, config.bands, config.rows).astype(np.uint64)
    folded = np.zeros(rows.shape[:2], dtype=np.uint64)
    for number in range(config.rows):
        folded = mix_bits(folded ^ rows[:, :, number])
    return folded


def jaccard(left: Hashes, right: Hashes) -> float:
    """Exact Jaccard similarity of two sorted sets of distinct shingles."""
    common = len(np.intersect1d(left, right, assume_unique=True))
    return common / (len(left) + len(right) - common)


def _family(hashes: int) -> tuple[Signatures, Signatures]:
    rng = np.random.default_rng(_FAMILY_SEED)
    drawn = rng.integers(0, np.iinfo(np.uint32).max, size=(2, hashes), dtype=np.uint32, endpoint=True)
    return drawn[0] | np.uint32(1), drawn[1]
