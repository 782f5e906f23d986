"""A batch of texts as the rules see it: words, lines and paragraphs as spans of one array of code points."""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np

from qwenops.data.characters import SPACE
from qwenops.data.quality.words import SIGN, character_classes, split_words
from qwenops.data.spans import Integers, Mask, Spans, Texts

Counting = Literal["blanks", "marks"]

NEWLINE, SPACE_CHARACTER = 10, 32


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
        return split_words(self, self.pieces)

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

    def characters(self, chosen: Mask) -> Spans:
        """The characters, without blanks, of the documents `chosen` (bool [N])."""
        places = np.flatnonzero((self.flags & SPACE) == 0)
        singles = self.spans(places, places + 1)
        return singles.where(chosen[singles.document])

    @cached_property
    def word_is_text(self) -> Mask:
        """Which of `words` are more than a mark; all of them when blanks count."""
        if self.counting == "blanks":
            return np.ones(len(self.words.starts), dtype=bool)
        return self.has(self.words, (character_classes()[self.codes] & SIGN) == 0)

    def has(self, spans: Spans, mask: Mask) -> Mask:
        """Whether any character of each span is in the mask over all characters."""
        sums = np.concatenate([[0], np.cumsum(mask)])
        return sums[spans.ends] > sums[spans.starts]

    def _stripped(self, spans: Spans) -> Spans:
        first = np.searchsorted(self.pieces.starts, spans.starts)
        last = np.searchsorted(self.pieces.starts, spans.ends)
        filled = last > first
        return Spans(self.pieces.starts[first[filled]], self.pieces.ends[last[filled] - 1], spans.document[filled])
