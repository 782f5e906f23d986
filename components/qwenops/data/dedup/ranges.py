"""Ranges of 64-bit keys: how a shuffle is cut so that one task holds a bounded number of rows.

Keys are hashes and so spread evenly: a power of two of equal ranges holds about as many rows each. Parts leave their
keys sorted, and the piece of a range reads its slice of every part and nothing else.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A row costs a piece some 100 bytes at its widest moment, so this is 400 MB.
ROWS_OF_RANGE = 1 << 22


@dataclass(frozen=True)
class KeyRanges:
    """Equal ranges of 64-bit keys.

    Attributes:
        bits: Leading bits of a key that name its range: there are 2**bits ranges.
    """

    bits: int

    @property
    def names(self) -> list[str]:
        """A name for each range, in order."""
        return [f"range-{number:07}" for number in range(1 << self.bits)]

    def slice_of(self, name: str, keys: NDArray[np.uint64]) -> slice:
        """Where the keys of a range lie among sorted ones."""
        number = int(name.rpartition("-")[2])
        first, after = (self._begin(one, keys) for one in (number, number + 1))
        return slice(first, after)

    def _begin(self, number: int, keys: NDArray[np.uint64]) -> int:
        if number >> self.bits:
            return len(keys)
        return int(np.searchsorted(keys, np.uint64(number << (64 - self.bits)) if self.bits else np.uint64(0)))


def ranges_for(rows: int, rows_of_range: int) -> KeyRanges:
    """The fewest ranges that hold no more than about `rows_of_range` of `rows` evenly spread keys each."""
    return KeyRanges(max(0, (max(rows, 1) - 1) // rows_of_range).bit_length())
