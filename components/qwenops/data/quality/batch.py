"""A batch of texts as the rules see it: words, lines and paragraphs as spans of one array of code points."""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qwenops.data.characters import ALPHABETIC, DIGIT, SPACE, WORD, Flags, Hashes
from qwenops.data.spans import Integers, Mask, Spans, Texts

Counting = Literal["blanks", "marks"]

NEWLINE, SPACE_CHARACTER = 10, 32
_APOSTROPHE, _QUOTE, _POINT, _COMMA, _COLON, _SLASH, _AT = 0x27, 0x2019, 0x2E, 0x2C, 0x3A, 0x2F, 0x40


class Batch(Texts):
    """Texts with their words, lines and paragraphs.

    Args:
        texts: The documents, N of them.
        counting: "blanks": a word is what stands between blanks; "marks": punctuation marks are words of their own,
            as in the tokenizers of published filters.
    """

    def __init__(self, texts: Sequence[str], counting: Counting = "blanks") -> None:
        super().__init__(texts)
        self.counting = counting

    @cached_property
    def pieces(self) -> Spans:
        """What stands between blanks."""
        edges = np.flatnonzero(np.diff((self.flags & SPACE) != 0)) + 1
        return self.spans(edges[0::2], edges[1::2])

    @cached_property
    def words(self) -> Spans:
        """The words, as `counting` says."""
        if self.counting == "blanks":
            return self.pieces
        kind = _kinds(self.codes, self.flags, self.pieces)
        edge = np.ones(len(kind), dtype=bool)
        edge[1:] = (kind[1:] != kind[:-1]) | ((kind[1:] == 2) & (self.codes[1:] != self.codes[:-1]))
        edge[_contractions(self.codes, self.flags)] = True
        edges = np.flatnonzero(edge)
        inside = kind[edges[:-1]] != 0
        return self.spans(edges[:-1][inside], edges[1:][inside])

    @cached_property
    def lines(self) -> Spans:
        """All lines, empty ones too, without their line breaks."""
        breaks = np.flatnonzero(self.codes == NEWLINE)
        return self.spans(breaks[:-1] + 1, breaks[1:])

    @cached_property
    def line_pieces(self) -> Integers:
        """How many pieces between blanks each of `lines` has."""
        return np.diff(np.searchsorted(self.pieces.starts, np.append(self.lines.starts, len(self.codes))))

    @cached_property
    def filled_lines(self) -> Spans:
        """Lines that are not blank, without the blanks around them."""
        return self._stripped(self.lines)

    @cached_property
    def paragraphs(self) -> Spans:
        """Stretches between empty lines, without the blanks around them."""
        lines = self.lines
        filled = lines.lengths > 0
        before = np.concatenate([[False], filled[:-1] & (lines.document[1:] == lines.document[:-1])])
        after = np.concatenate([filled[1:] & (lines.document[1:] == lines.document[:-1]), [False]])
        starts, ends = lines.starts[filled & ~before], lines.ends[filled & ~after]
        return self._stripped(self.spans(starts, ends))

    @cached_property
    def word_hashes(self) -> Hashes:
        """uint64 for each of `words`; equal for equal words."""
        return self.hashes(self.words)

    @cached_property
    def word_is_text(self) -> Mask:
        """Which of `words` are more than a mark; all of them when blanks count."""
        if self.counting == "blanks":
            return np.ones(len(self.words.starts), dtype=bool)
        return (self.flags[self.words.starts] & WORD) != 0

    def _stripped(self, spans: Spans) -> Spans:
        first = np.searchsorted(self.pieces.starts, spans.starts)
        last = np.searchsorted(self.pieces.starts, spans.ends)
        filled = last > first
        return Spans(self.pieces.starts[first[filled]], self.pieces.ends[last[filled] - 1], spans.document[filled])


def _kinds(codes: NDArray[np.uint32], flags: Flags, pieces: Spans) -> NDArray[np.uint8]:
    """0 for a blank, 1 for a character of a word, 2 for a mark.

    Marks inside numbers (3.5, 1,000, 11:08), names (example.com) and addresses (anything with @ or //) belong to the
    word.
    """
    kind = np.where(flags & WORD, 1, np.where(flags & SPACE, 0, 2)).astype(np.uint8)
    points = np.flatnonzero(codes == _POINT)
    kind[points[_between(flags, points, WORD)]] = 1
    marks = np.flatnonzero((codes == _COMMA) | (codes == _COLON))
    kind[marks[_between(flags, marks, DIGIT)]] = 1
    kind[_contractions(codes, flags)] = 1
    slashes = np.flatnonzero(codes == _SLASH)
    signs = np.concatenate([np.flatnonzero(codes == _AT), slashes[codes[slashes + 1] == _SLASH]])
    for number in np.unique(np.searchsorted(pieces.starts, signs, side="right") - 1).tolist():
        words = np.flatnonzero(kind[pieces.starts[number] : pieces.ends[number]] == 1) + pieces.starts[number]
        if len(words):
            kind[words[0] : words[-1] + 1] = 1
    return kind


def _contractions(codes: NDArray[np.uint32], flags: Flags) -> Integers:
    """Places of apostrophes between letters: "it's" is two words, "it" and "'s"."""
    marks = np.flatnonzero((codes == _APOSTROPHE) | (codes == _QUOTE))
    return marks[_between(flags, marks, ALPHABETIC)]


def _between(flags: Flags, places: Integers, bit: int) -> Mask:
    """Which places have a character of the class `bit` on both sides; the outermost characters are line breaks."""
    return (flags[places - 1] & flags[places + 1] & bit) != 0
