"""Repetition measured over n-grams of a whole batch, of words or characters: rolling hashes, narrowed to what repeats.

An n-gram that occurs once has no longer n-gram that occurs twice, so from 3-grams on only the places whose shorter
n-gram repeats are looked at: in ordinary text a tenth, then a hundredth of all.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from qwenops.data.characters import Hashes, mix_bits
from qwenops.data.quality.batch import Batch
from qwenops.data.spans import Integers, Spans, is_repeated

_MULTIPLIER = np.uint64(0xD1342543DE82EF95)
_COUNT_SHIFT = 40


@dataclass(frozen=True)
class Repeats:
    """The n-grams of a batch that occur more than once in their document.

    Attributes:
        n: Units (words or characters) in each.
        places: int64 [R], number of the first unit, ascending.
        keys: uint64 [R], equal for the same n-gram of the same document.
    """

    n: int
    places: Integers
    keys: Hashes


class NGrams:
    """The words or characters of a batch, ready for n-gram questions; ask for ascending n through `repeats`.

    Args:
        batch: The texts.
        units: What an n-gram is made of, in order: the words, or the characters of scripts without blanks.
        blank: Characters between two units, 1 for words and 0 for characters.
    """

    def __init__(self, batch: Batch, units: Spans, blank: int) -> None:
        self._batch, self._hashes, self._blank = batch, batch.hashes(units), blank
        self._document = units.document
        self._ends = np.concatenate([[0], np.cumsum(units.lengths)])
        last = np.cumsum(np.bincount(self._document, minlength=batch.count))
        self._last = last[self._document] if len(self._document) else last[:0]

    def repeats(self, longest: int) -> Iterator[Repeats]:
        """Repeated n-grams for n = 2 up to `longest`."""
        words = self._hashes
        places = np.arange(len(words))
        keys = words + mix_bits(self._document.astype(np.uint64))
        for n in range(2, longest + 1):
            inside = places + n <= self._last[places]
            places = places[inside]
            keys = keys[inside] * _MULTIPLIER + words[places + (n - 1)]
            again = is_repeated(keys, keep=False)
            places, keys = places[again], keys[again]
            yield Repeats(n, places, keys)

    def top_characters(self, found: Repeats) -> Integers:
        """Characters, with blanks between words, of each document's most frequent n-gram in all its places: int64 [N].

        0 where none repeats; the longest of equally frequent ones counts.
        """
        numbers, _ = pd.factorize(found.keys)
        first = found.places[~is_repeated(found.keys)]
        counts = np.bincount(numbers, minlength=len(first)).astype(np.int64)
        spans = self._ends[first + found.n] - self._ends[first] + self._blank * (found.n - 1)
        best = np.zeros(self._batch.count, dtype=np.int64)
        np.maximum.at(best, self._document[first], (counts << _COUNT_SHIFT) + spans)
        return (best >> _COUNT_SHIFT) * (best & ((1 << _COUNT_SHIFT) - 1))

    def repeated_characters(self, found: Repeats) -> Integers:
        """Characters of each document in n-grams that occurred before, left to right, not overlapping: int64 [N]."""
        taken: list[int] = []
        free = 0
        for place in found.places[is_repeated(found.keys)].tolist():
            if place >= free:
                taken.append(place)
                free = place + found.n
        chosen = np.array(taken, dtype=np.int64)
        amounts = self._ends[chosen + found.n] - self._ends[chosen]
        return np.bincount(self._document[chosen], weights=amounts, minlength=self._batch.count).astype(np.int64)
