"""C4's rules: refuse a document, cut its bad lines, and ask for enough sentences in what is left."""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from qwenops.data.characters import CLOSING, FULL_MARK, MARK
from qwenops.data.quality.batch import Batch
from qwenops.data.quality.config import C4Config
from qwenops.data.quality.words import PUNCTUATION, character_classes
from qwenops.data.spans import Integers, Mask

FEW_SENTENCES = "c4_few_sentences"
_CITATION = re.compile(r"\[\d{1,3}\]|\[edit\]|\[citation needed\]")
_BLANK_LINES = re.compile(r"\n{4,}")
_FENCE = ("```", "~~~")
_BAD_PHRASES = (
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
_ENDS = (".", "?", "!", '"', "'")
_TRAILING = "..."


def check_documents(texts: Sequence[str]) -> list[tuple[str, Mask]]:
    """Which texts hold filler, or a curly bracket outside of programs (which C4 meant to keep out of prose)."""
    return [
        ("c4_lorem_ipsum", np.array(["lorem ipsum" in text.lower() for text in texts], dtype=bool)),
        ("c4_curly_bracket", np.array([_has_bracket(text) for text in texts], dtype=bool)),
    ]


def _has_bracket(text: str) -> bool:
    return "{" in text and any("{" in line and not program for line, program in program_lines(text))


def remove_bad_lines(
    batch: Batch, texts: Sequence[str], spaced: Mask, chosen: Sequence[int], config: C4Config
) -> list[str]:
    """The texts `chosen` of the batch without citation marks and bad lines.

    Args:
        batch: All texts.
        texts: The same.
        spaced: For each chosen text, whether its script has blanks between words.
        chosen: Numbers in the batch.
        config: What a bad line is.
    """
    short = batch.total(batch.lines, (batch.line_pieces > 0) & (batch.line_pieces < config.min_words_per_line))
    long = batch.total(batch.pieces, batch.pieces.lengths > config.max_word_characters)
    result: list[str] = []
    for number, is_spaced in zip(chosen, spaced.tolist(), strict=True):
        text = texts[number]
        suspect = "[" in text or long[number] or (is_spaced and short[number]) or config.line_end == "terminal"
        if suspect or _has_bad_phrase(text):
            text = _cut(text, is_spaced, config)
        result.append(_BLANK_LINES.sub("\n\n\n", text).strip("\n"))
    return result


def few_sentences(batch: Batch, config: C4Config) -> list[tuple[str, Mask]]:
    """Which texts have too few sentences.

    Where blanks count, a sentence is a mark that something closes; where marks count, every line is one at least and
    a new one may begin within it, as in the sentence splitters of published filters.
    """
    if batch.counting == "blanks":
        closed = np.concatenate([(batch.flags[1:] & CLOSING) != 0, [False]])
        ends = (((batch.flags & MARK) != 0) & closed) | ((batch.flags & FULL_MARK) != 0)
        return [(FEW_SENTENCES, batch.count_in(ends) < config.min_sentences)]
    return [(FEW_SENTENCES, batch.number(batch.filled_lines) + _more_sentences(batch) < config.min_sentences)]


def _more_sentences(batch: Batch) -> Integers:
    """Sentences of each text that begin within a line: words after a mark that is a word of its own."""
    words = batch.words
    alone = words.lengths == 1
    ends = alone & ((batch.flags[words.starts] & (MARK | FULL_MARK)) != 0)
    before = np.cumsum(ends) - ends
    line = np.searchsorted(batch.lines.starts, words.starts, side="right")
    first = np.append(True, line[1:] != line[:-1])[: len(line)]
    speaks = np.flatnonzero(batch.has(words, (character_classes()[batch.codes] & PUNCTUATION) == 0))
    # Marks seen up to the last word of the line that was no mark, or to the line's begin.
    seen = np.maximum.accumulate(np.where(first, before, 0))[speaks]
    seen[1:] = np.maximum(seen[1:], before[speaks[:-1]])
    return np.bincount(words.document[speaks], weights=before[speaks] > seen, minlength=batch.count).astype(np.int64)


def _cut(text: str, is_spaced: bool, config: C4Config) -> str:
    kept: list[str] = []
    for line, program in program_lines(text):
        if not program:
            line = _CITATION.sub("", line) if "[" in line else line
        if program or not line.strip() or _is_good(line, is_spaced, config):
            kept.append(line)
    return "\n".join(kept)


def program_lines(text: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it seems to be of a program: inside a fence, or in a block with an indented line.

    Programs are left whole, since a line rule or a citation rule would take "else:" or the index of "row[0]" out.
    """
    lines = text.split("\n")
    fenced, start = False, 0
    while start < len(lines):
        if fenced or lines[start].lstrip().startswith(_FENCE):
            fenced = fenced != lines[start].lstrip().startswith(_FENCE)
            yield lines[start], True
            start += 1
            continue
        end = start + 1
        while (
            end < len(lines)
            and lines[start].strip()
            and lines[end].strip()
            and not lines[end].lstrip().startswith(_FENCE)
        ):
            end += 1
        program = any(line[:1] in " \t" and line.strip() for line in lines[start:end] if line)
        yield from ((line, program) for line in lines[start:end])
        start = end


def _is_good(line: str, is_spaced: bool, config: C4Config) -> bool:
    words = line.split()
    if is_spaced and len(words) < config.min_words_per_line:
        return False
    if max(map(len, words)) > config.max_word_characters:
        return False
    if config.line_end == "terminal" and (not line.rstrip().endswith(_ENDS) or line.rstrip().endswith(_TRAILING)):
        return False
    return not _has_bad_phrase(line)


def _has_bad_phrase(text: str) -> bool:
    lowered = text.lower()
    return any(phrase in lowered for phrase in _BAD_PHRASES)
