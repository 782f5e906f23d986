"""Many texts as one array of code points, and spans of it with hashes: the ground of rules and of deduplication.

Questions about words, lines or shingles become a few passes in numpy over all documents together, where a loop over
words costs a hundred times as much. The hash of any span is the difference of two prefix sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qwenops.data.characters import Flags, Hashes, character_tables, mix_bits

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)


@dataclass(frozen=True)
class Spans:
    """Pieces of a batch in order; none crosses a document.

    Attributes:
        starts: int64 [S], place of the first character.
        ends: int64 [S], place after the last.
        document: int64 [S], the document it lies in.
    """

    starts: Integers
    ends: Integers
    document: Integers

    @property
    def lengths(self) -> Integers:
        """Characters of each piece."""
        return self.ends - self.starts

    def where(self, mask: Mask) -> "Spans":
        """The pieces that `mask` chooses."""
        return Spans(self.starts[mask], self.ends[mask], self.document[mask])


class Texts:
    """Texts laid end to end, a line break before, between and after them.

    Args:
        texts: The documents, N of them.

    Attributes:
        count: N.
        codes: uint32 [B], code points.
        flags: uint16 [B], their classes (`characters`).
        first: int64 [N], where each document begins.
        sizes: int64 [N], its characters.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.count = len(texts)
        joined = "\n".join(["", *texts, ""])
        self.codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        self.flags: Flags = character_tables().flags[self.codes]
        self.sizes: Integers = np.array([len(text) for text in texts], dtype=np.int64)
        self.first: Integers = 1 + np.concatenate([[0], np.cumsum(self.sizes + 1)[:-1]]).astype(np.int64)

    def spans(self, starts: Integers, ends: Integers) -> Spans:
        """Spans between places, with their documents."""
        return Spans(starts, ends, self._document_of(starts))

    def hashes(self, spans: Spans) -> Hashes:
        """uint64 for each span; equal for spans of the same text."""
        return range_hashes(self._sums, spans.starts, spans.ends)

    def folded_hashes(self, spans: Spans) -> Hashes:
        """As `hashes`, of the case-folded text; a character that folds into several stays as it is."""
        return range_hashes(prefix_sums(character_tables().folded[self.codes]), spans.starts, spans.ends)

    def count_in(self, places: Integers | Mask) -> Integers:
        """How many of the ascending places (or of a mask over characters) lie in each document: int64 [N]."""
        found = np.flatnonzero(places) if places.dtype == bool else places
        return self._counts(found.astype(np.int64, copy=False))

    def total(self, spans: Spans, amounts: NDArray[Any]) -> Integers:
        """Sum of `amounts`, one for each span, by document: int64 [N]."""
        return np.bincount(spans.document, weights=amounts, minlength=self.count).astype(np.int64)

    def number(self, spans: Spans) -> Integers:
        """How many of the spans lie in each document: int64 [N]."""
        return np.bincount(spans.document, minlength=self.count)

    def repeated(self, spans: Spans) -> tuple[Integers, Integers]:
        """How many spans occurred earlier in their document, and the characters in them: int64 [N] each."""
        again = is_repeated(self.hashes(spans) ^ mix_bits(spans.document.astype(np.uint64)))
        return self.total(spans, again), self.total(spans, spans.lengths * again)

    @cached_property
    def _sums(self) -> Hashes:
        return prefix_sums(character_tables().values[self.codes])

    def _document_of(self, places: Integers) -> Integers:
        """Document of each place; the places ascend, so that one search for each document is enough."""
        return np.repeat(np.arange(self.count), self._counts(places))

    def _counts(self, places: Integers) -> Integers:
        return np.diff(np.searchsorted(places, np.append(self.first, len(self.codes))))


def is_repeated(keys: Hashes, keep: Literal["first", False] = "first") -> Mask:
    """Which keys occurred before; with `keep=False`, which occur more than once."""
    return pd.Series(keys).duplicated(keep=keep).to_numpy()


def prefix_sums(values: Hashes) -> Hashes:
    """Sums of value times base to the place, modulo 2**64, before each place: uint64 [len(values) + 1]."""
    sums = np.zeros(len(values) + 1, dtype=np.uint64)
    np.cumsum(values * _powers(_BASE, len(values)), out=sums[1:])
    return sums


def range_hashes(sums: Hashes, starts: Integers, ends: Integers) -> Hashes:
    """Hash of the values between places: their sum, shifted to the place 0 and mixed."""
    return mix_bits((sums[ends] - sums[starts]) * _powers(_INVERSE, len(sums))[starts])


def _powers(base: int, count: int) -> Hashes:
    """The first powers of `base` modulo 2**64."""
    return _some_powers(base, 1 << max(count - 1, 1).bit_length())[:count]


@lru_cache(maxsize=8)
def _some_powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors)
