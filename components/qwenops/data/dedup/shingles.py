"""Shingles of many texts at once: hashed runs of normalised words, as places in one array.

The words are those of `tasks.overlap.words`, found by the classes of characters instead of a regular expression: what
deduplication and decontamination mean by a word is the same, and a test compares the two. Nothing here depends on
how documents are split into batches.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from qwenops.data.characters import COMBINING, NORMAL, UNSPACED, Flags, Hashes, expanding_casefold_pattern
from qwenops.data.dedup.config import DedupConfig
from qwenops.data.spans import Integers, Mask, Spans, Texts, prefix_sums, range_hashes

# Code points held at once; some 100 bytes of arrays for each.
_BATCH_CHARACTERS = 1 << 19
_SAMPLED_WORDS = 200


@dataclass(frozen=True)
class Shingles:
    """Shingle hashes of a batch of N texts, in order and repeated ones too.

    Attributes:
        hashes: uint64 [S].
        starts: int64 [N + 1], where each text's begin; every text has one at least.
        exact: uint64 [N, 2], a digest of each whole text: equal for texts that differ in case and punctuation only.
    """

    hashes: Hashes
    starts: Integers
    exact: NDArray[np.uint64]


def in_batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in order, about `_BATCH_CHARACTERS` of them at a time."""
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and size + len(text) > _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch


def shingle(texts: Sequence[str], config: DedupConfig) -> Shingles:
    """Shingles of each text: word or, in scripts without spaces, character runs; a short text is one shingle."""
    batch = Texts([normalised(text) for text in texts])
    words, unspaced = find_words(batch)
    hashes = batch.folded_hashes(words)
    counts = batch.number(words)
    first = np.cumsum(counts) - counts
    lengths = np.minimum(
        np.where(_mostly(unspaced, words, first, counts), config.character_shingle, config.word_shingle), counts
    )
    number = np.where(counts > 0, counts - lengths + 1, 0)
    starts = np.concatenate([[0], np.cumsum(np.maximum(number, 1))])
    document = np.repeat(np.arange(batch.count), number)
    place = np.arange(len(document)) - (np.cumsum(number) - number)[document] + first[document]
    sums = prefix_sums(hashes)
    found = np.zeros(starts[-1], dtype=np.uint64)
    filled = np.repeat(counts > 0, np.maximum(number, 1))
    found[filled] = range_hashes(sums, place, place + lengths[document])
    exact = np.stack([range_hashes(sums, first, first + counts), _second_digest(hashes, first, counts)], axis=1)
    for empty in np.flatnonzero(counts == 0).tolist():  # punctuation only: compare the text as it is
        plain = unicodedata.normalize("NFC", texts[empty]).encode("utf-8", "surrogatepass")
        found[starts[empty]] = exact[empty, 0] = xxhash.xxh3_64_intdigest(plain)
    return Shingles(found, starts, exact)


def normalised(text: str) -> str:
    """NFC, and case-folded where a character folds into several; the rest is folded while it is hashed."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text)
    return text.casefold() if expanding_casefold_pattern().search(text) else text


def find_words(batch: Texts) -> tuple[Spans, Mask]:
    """The words of normalised texts, and which of them are characters of a script without spaces.

    A word is a run of letters, marks and numbers; in scripts without spaces, one character with its marks.
    """
    flags = batch.flags
    normal, unspaced = (flags & NORMAL) != 0, (flags & UNSPACED) != 0
    begins = normal & ~np.concatenate([[False], normal[:-1]])
    if unspaced.any():
        chained = _chained(flags)
        begins |= unspaced & ~chained
        # A letter after such a character, or after its marks, is the next word.
        begins[1:] |= (normal & ~unspaced & ~chained)[1:] & (unspaced | chained)[:-1]
    ends = ~normal & np.concatenate([[False], normal[:-1]])
    edges = np.flatnonzero(begins | ends)
    starts = np.flatnonzero(begins[edges])
    return batch.spans(edges[starts], edges[starts + 1]), unspaced[edges[starts]]


def _chained(flags: Flags) -> Mask:
    """Marks whose nearest character before that is no mark, or one of a script without spaces, is of such a script."""
    marks = (flags & COMBINING) != 0
    unspaced = (flags & UNSPACED) != 0
    owners = np.where(~marks | unspaced, np.arange(len(flags)), 0)
    nearest = np.concatenate([[0], np.maximum.accumulate(owners)[:-1]])
    return marks & unspaced[nearest]


def _mostly(unspaced: Mask, words: Spans, first: Integers, counts: Integers) -> Mask:
    """Whether most of each text's first words are characters of a script without spaces."""
    rank = np.arange(len(words.starts)) - first[words.document]
    sampled = np.minimum(counts, _SAMPLED_WORDS)
    found = np.bincount(words.document, weights=unspaced & (rank < _SAMPLED_WORDS), minlength=len(counts))
    return found * 2 > sampled


def _second_digest(hashes: Hashes, first: Integers, counts: Integers) -> Hashes:
    return range_hashes(prefix_sums(hashes ^ (hashes >> np.uint64(29))), first, first + counts)
