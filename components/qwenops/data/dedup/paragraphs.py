"""Paragraphs of documents: where they are, when two say the same, and texts without some of them.

Two paragraphs say the same when their words do, so case, spaces and punctuation do not count, as for whole documents.
CCNet hashes lines in the same way with 64 bits; Lee et al. (arXiv 2107.06499) remove repeated substrings of any place
with a suffix array, which cuts sentences in two and needs the corpus as one string.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwenops.data.characters import Hashes
from qwenops.data.dedup.config import ParagraphsConfig
from qwenops.data.dedup.shingles import find_words, in_batches, normalised
from qwenops.data.spans import Integers, Mask, Texts, prefix_sums, range_hashes

# The separator of two paragraphs, in a group, so that a split keeps it.
_SEPARATORS = {"line": re.compile(r"(\n)"), "block": re.compile(r"(\n(?:[^\S\n]*\n)+)")}
_BLANK_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True)
class Paragraphs:
    """The paragraphs of N texts that have words, in order.

    Attributes:
        document: int64 [P], the text each lies in.
        place: int64 [P], which of that text's paragraphs it is, those without words counted.
        keys: uint64 [P], equal for paragraphs of the same words.
        words: int64 [P].
    """

    document: Integers
    place: Integers
    keys: Hashes
    words: Integers

    def where(self, mask: Mask) -> "Paragraphs":
        """The paragraphs that `mask` chooses."""
        return Paragraphs(self.document[mask], self.place[mask], self.keys[mask], self.words[mask])


def find_paragraphs(texts: Sequence[str], config: ParagraphsConfig) -> Paragraphs:
    """All paragraphs with words of the texts."""
    pieces = [_split(text, config)[::2] for text in texts]
    sizes = np.array([len(some) for some in pieces], dtype=np.int64)
    document = np.repeat(np.arange(len(texts)), sizes)
    place = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    found = [*_keyed([piece for some in pieces for piece in some])]
    keys = np.concatenate([np.zeros(0, np.uint64), *(keys for keys, _ in found)])
    words = np.concatenate([np.zeros(0, np.int64), *(words for _, words in found)])
    spoken = words > 0
    return Paragraphs(document[spoken], place[spoken], keys[spoken], words[spoken])


def paragraph_at(text: str, place: int, config: ParagraphsConfig) -> str:
    """One paragraph of a text."""
    return _split(text, config)[2 * place]


def remove_paragraphs(text: str, places: Sequence[int], config: ParagraphsConfig) -> str:
    """The text without the paragraphs at `places`; what is left keeps at most one blank line in a row."""
    pieces = _split(text, config)
    for place in places:
        pieces[2 * place] = ""
        if 2 * place + 1 < len(pieces):
            pieces[2 * place + 1] = ""
    return _BLANK_LINES.sub("\n\n", "".join(pieces)).strip("\n")


def _split(text: str, config: ParagraphsConfig) -> list[str]:
    """Paragraph, separator, paragraph, ..., paragraph."""
    return _SEPARATORS[config.unit].split(text)


def _keyed(pieces: Sequence[str]) -> Iterator[tuple[Hashes, NDArray[np.int64]]]:
    """Key and number of words of every piece, a batch at a time."""
    for some in in_batches(pieces):
        batch = Texts([normalised(piece) for piece in some])
        words, _ = find_words(batch)
        counts = batch.number(words)
        first = np.cumsum(counts) - counts
        yield range_hashes(prefix_sums(batch.folded_hashes(words)), first, first + counts), counts
