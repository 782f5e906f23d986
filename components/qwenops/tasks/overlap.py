"""What two texts share: normalised words, hashed word n-grams, and the report's contamination rule.

Shared ground because three stages must agree on it: decontamination removes what this finds in documents, the
contamination analysis counts what is left, and deduplication compares the same words. Words are runs of letters
and digits, case-folded after NFC; scripts written without spaces give one word per character. The report
says "remove symbols and punctuation, tokenise" and no more, so the tokenisation is a house choice.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import regex
import xxhash
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq

from qwenops.tasks.evalitem import Part

Rule = Literal["subsequence", "ngram"]
Hashes = NDArray[np.uint64]

UNSPACED_SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(rf"[{UNSPACED_SCRIPTS}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED_SCRIPTS}]]+", regex.V1)
_UNSPACED_CHARACTER = regex.compile(f"[{UNSPACED_SCRIPTS}]")
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Leak(NamedTuple):
    """A text by which an evaluation item leaks.

    Attributes:
        task: Evaluation set.
        item: Id of the item in its set.
        text: The words to look for.
        part: Which part of the item they are.
    """

    task: str
    item: str
    text: str
    part: Part = "whole"


@dataclass(frozen=True)
class Match:
    """An evaluation item that a text contains.

    Attributes:
        task: Evaluation set.
        item: Id of the item in its set.
        part: The part of the item that is found.
        common: Length of the longest common subsequence, in words.
        share: `common` over the shorter of the two, 0 to 1.
    """

    task: str
    item: str
    part: Part
    common: int
    share: float


def words(text: str) -> list[str]:
    """Normalised words: NFC, case-folded, no punctuation or symbols, one per character in unspaced scripts."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return _WORD.findall(unicodedata.normalize("NFC", text).casefold())


def is_unspaced(tokens: Sequence[str]) -> bool:
    """Whether most words are single characters of a script written without spaces."""
    return sum(_UNSPACED_CHARACTER.match(token) is not None for token in tokens[:200]) * 2 > len(tokens[:200])


def gram_hashes(tokens: Sequence[str], length: int) -> Hashes:
    """64-bit hashes of all runs of `length` words, in order: uint64 [len(tokens) - length + 1], or [0] if too short."""
    if len(tokens) < length:
        return np.zeros(0, dtype=np.uint64)
    hashes = np.fromiter(map(_word_hash, tokens), dtype=np.uint64, count=len(tokens))
    count = len(tokens) - length + 1
    grams = np.zeros(count, dtype=np.uint64)
    for place in range(length):  # a polynomial in the multiplier, modulo 2**64
        grams = grams * _MULTIPLIER + hashes[place : place + count]
    return mix_bits(grams)


def mix_bits(values: Hashes) -> Hashes:
    """The splitmix64 finaliser: near inputs give unrelated outputs."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))


class OverlapIndex:
    """Finds evaluation items in texts.

    The rule "subsequence" is the report's (section 5.2.6): a shared run of `length` words makes a candidate, and the
    longest common subsequence must reach `length` words and `min_share` of the shorter text. The rule "ngram" is
    Qwen1's: any shared run counts. The report does not say what its "test sequence" is; here each part of an item is
    one (house choice), since a question that leaks without its solution stays below `min_share` of both together. In a
    long document chance subsequences add up, so the subsequence is taken in a window of twice the part's length
    around the shared run (house choice). Parts shorter than `length` words can never be found by either rule;
    `short_items="contain"` finds questions and whole items when a text contains all of their words in a row.

    Args:
        leaks: What to look for.
        length: Words of a candidate run, and least common words.
        min_share: Least share of the shorter text.
        rule: Which rule decides.
        short_items: What happens to questions and whole items shorter than `length`.
    """

    def __init__(
        self,
        leaks: Iterable[Leak],
        *,
        length: int = 13,
        min_share: float = 0.6,
        rule: Rule = "subsequence",
        short_items: Literal["ignore", "contain"] = "ignore",
    ) -> None:
        self._length, self._min_share, self._rule = length, min_share, rule
        self._leaks: list[tuple[Leak, list[str]]] = []
        grams: dict[int, list[tuple[Hashes, int]]] = {}
        for leak in leaks:
            tokens = words(leak.text)
            run = min(length, len(tokens))
            if run == length or (run and short_items == "contain" and leak.part != "answer"):
                grams.setdefault(run, []).append((gram_hashes(tokens, run), len(self._leaks)))
                self._leaks.append((leak, tokens))
        self._tables = {run: _sorted_table(entries) for run, entries in grams.items()}

    def matches(self, text: str) -> list[Match]:
        """The items that `text` contains, the best match of each, ordered by task and item."""
        tokens = words(text)
        best: dict[tuple[str, str], Match] = {}
        for run, (keys, numbers) in self._tables.items():
            for number, middle in _shared_runs(gram_hashes(tokens, run), keys, numbers):
                match = self._judge(tokens, middle + run // 2, number, run)
                if match and _strength(match) > _strength(best.get((match.task, match.item))):
                    best[match.task, match.item] = match
        return [best[name] for name in sorted(best)]

    def _judge(self, tokens: list[str], middle: int, number: int, run: int) -> Match | None:
        leak, wanted = self._leaks[number]
        window = tokens[max(0, middle - len(wanted)) : middle + len(wanted)]
        common = LCSseq.similarity(window, wanted)
        share = common / min(len(tokens), len(wanted))
        if self._rule == "subsequence" and run == self._length and (common < run or share < self._min_share):
            return None
        return Match(leak.task, leak.item, leak.part, common, share)


def _strength(match: Match | None) -> tuple[int, float]:
    return (match.common, match.share) if match else (0, 0.0)


def _shared_runs(grams: Hashes, keys: Hashes, numbers: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """(number of a leak, place of the middle gram) of every stretch of grams that a text and a leak share."""
    first = np.searchsorted(keys, grams, side="left")
    counts = np.searchsorted(keys, grams, side="right") - first
    places = np.repeat(np.arange(len(grams)), counts)
    if not len(places):
        return
    within = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
    owners = numbers[np.repeat(first, counts) + within]
    order = np.lexsort((places, owners))
    places, owners = places[order], owners[order]
    # A leak that repeats a gram has one place twice, so steps of 0 and 1 stay in a stretch.
    starts = np.flatnonzero(np.append(True, (np.diff(owners) != 0) | (np.diff(places) > 1)))
    ends = np.append(starts[1:], len(places)) - 1
    yield from zip(owners[starts].tolist(), ((places[starts] + places[ends]) // 2).tolist(), strict=True)


def _sorted_table(entries: list[tuple[Hashes, int]]) -> tuple[Hashes, NDArray[np.int64]]:
    keys = np.concatenate([hashes for hashes, _ in entries])
    numbers = np.concatenate([np.full(len(hashes), number) for hashes, number in entries])
    order = np.argsort(keys, kind="stable")
    return keys[order], numbers[order]


@lru_cache(maxsize=1 << 20)
def _word_hash(word: str) -> int:
    return xxhash.xxh3_64_intdigest(word.encode())
