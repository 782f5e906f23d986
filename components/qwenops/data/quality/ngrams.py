"""Repetition measured over word n-grams, vectorised: words become integers, n-grams become rolling hashes."""

import numpy as np

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class WordGrams:
    """The words of one text, ready for n-gram questions.

    Args:
        words: The words in order.
    """

    def __init__(self, words: list[str]) -> None:
        codes: dict[str, int] = {}
        ids = np.array([codes.setdefault(word, len(codes) + 1) for word in words], dtype=np.uint64)
        self._words = _mix(ids)
        self._lengths = np.array([len(word) for word in words], dtype=np.int64)
        self._ends = np.concatenate([[0], np.cumsum(self._lengths)])

    def top_characters(self, n: int) -> int:
        """Characters, with blanks between words, of the most frequent n-gram in all its places; 0 if none repeats."""
        if len(self._words) < n:
            return 0
        _, first, counts = np.unique(self._hashes(n), return_index=True, return_counts=True)
        best = int(counts.max())
        if best < 2:
            return 0
        spans = self._ends[first + n] - self._ends[first] + (n - 1)
        return int((spans * counts)[counts == best].max())

    def repeated_characters(self, n: int) -> int:
        """Characters in n-grams that occurred before, left to right, not overlapping."""
        if len(self._words) <= n:
            return 0
        hashes = self._hashes(n)
        _, first = np.unique(hashes, return_index=True)
        repeated = np.ones(len(hashes), dtype=bool)
        repeated[first] = False
        total, free = 0, 0
        for place in np.flatnonzero(repeated):
            if place >= free:
                total += int(self._ends[place + n] - self._ends[place])
                free = place + n
        return total

    def _hashes(self, n: int) -> np.ndarray:
        """uint64 hashes of the n-grams, shape [words - n + 1]."""
        size = len(self._words) - n + 1
        hashes = np.zeros(size, dtype=np.uint64)
        for offset in range(n):
            hashes = hashes * _MULTIPLIER + self._words[offset : offset + size]
        return hashes


def _mix(ids: np.ndarray) -> np.ndarray:
    """Spread small integers over 64 bits (splitmix64), so that sums of them do not collide."""
    mixed = ids * _MULTIPLIER
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ (mixed >> np.uint64(27))
