"""Words as published filters count them: punctuation marks apart, abbreviations, numbers and addresses whole.

The thresholds of Gopher and FineWeb are used with the words of spaCy's English tokenizer, so this takes the same
steps, for a whole batch at once: marks come off both ends of what stands between blanks, clitics and units off the
end of the core that is left, and the core is cut at infixes unless it is an address. spaCy lists a thousand special
cases besides; here the common abbreviations stand for them.
"""

import re
import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

from qwenops.data.characters import ALPHABETIC, ASSIGNED, DIGIT, FULL_MARK, LOWER, Hashes, character_tables
from qwenops.data.spans import Integers, Mask, Spans, Texts

_ABBREVIATIONS = (
    "Mr. Mrs. Ms. Dr. Prof. St. Mt. Jr. Sr. Gov. Gen. Rep. Rev. Sen. Adm. Messrs. Inc. Ltd. Co. co. Corp. Bros. vs."
    " a.m. p.m. e.g. i.e. E.g. I.e. Ph.D. Jan. Feb. Mar. Apr. Jun. Jul. Aug. Sep. Sept. Oct. Nov. Dec."
    " Ala. Ariz. Ark. Calif. Colo. Conn. Del. Fla. Ga. Ia. Ill. Ind. Kan. Ky. La. Mass. Md. Mich. Minn. Miss. Mo."
    " Mont. Neb. Nev. Okla. Ore. Pa. Tenn. Va. Wash. Wis."
)
_UNITS = "km m dm cm mm nm ha yd in ft kg g mg t lb oz kmh mph Pa hPa mb MB kb KB gb GB tb TB T G M K am pm a.m. p.m."
_WHOLE = "and/or w/o"
_ADDRESS = re.compile(
    r"(?:[\w+.-]{2,}://)?(?:\S+@)?(?:\d{1,3}(?:\.\d{1,3}){3}|(?:(?:[^\W_][\w-]{0,62})?[^\W_]\.)+[a-z]{2,63})"
    r"(?::\d{2,5})?(?:[/?#]\S*)?"
)

(_OPENS, _CLOSES, _APART, _INFIX, _UPPER, _QUOTE, SIGN, PUNCTUATION) = (1 << place for place in range(8))
# Characters of these categories come off both ends of a piece, except those that words are written with.
_MARK_CATEGORIES = ("Ps", "Pe", "Pi", "Pf", "Po")
_NOT_MARKS, _MORE_MARKS = "./@\\%", "<>`\u00b4_\u2014\u2013"
_QUOTES, _APOSTROPHES = "\"'`\u00b4\u201e\u201a", "'\u2019"
_HYPHENS, _BETWEEN_LETTERS, _BETWEEN_DIGITS = "-\u2013\u2014~", ":<>=/", "+-*^"
_MAX_HYPHENS, _MAX_UNIT = 3, 4
_POINT, _COMMA, _PLUS, _PERCENT, _HYPHEN, _SQUARE = (ord(mark) for mark in ".,+%-\u00b2")


def split_words(batch: Texts, pieces: Spans) -> Spans:
    """The words of a batch, given what stands between blanks."""
    return _Cutter(batch, pieces).words()


@cache
def character_classes() -> NDArray[np.uint8]:
    """Classes of this module by code point: uint8 [0x110000]."""
    table = np.zeros(len(character_tables().flags), dtype=np.uint8)
    for number in range(ASSIGNED):
        character = chr(number)
        category = unicodedata.category(character)
        if category in ("Ll", "Lo", "Mn", "Cn", "Co", "Cs"):
            continue
        mark = character in _MORE_MARKS or (category in _MARK_CATEGORIES and character not in _NOT_MARKS)
        table[number] = (
            _OPENS * (mark or category in ("Sc", "So") or character in "%=+")
            | _CLOSES * (mark or category == "So")
            | _APART * (category == "So" or character == "\u2026")
            | _INFIX * (character in _HYPHENS + _BETWEEN_LETTERS + _BETWEEN_DIGITS + ",")
            | _UPPER * (category == "Lu")
            | _QUOTE * (category in ("Pi", "Pf") or character in _QUOTES)
            | SIGN * (category[0] in "PSCZ")
            | PUNCTUATION * (category[0] == "P")
        )
    table[(character_tables().flags & FULL_MARK) != 0] |= _OPENS | _CLOSES | _APART
    return table


class _Cutter:
    """One batch on its way to words; every step looks only at the few characters that it is about."""

    def __init__(self, batch: Texts, pieces: Spans) -> None:
        self.batch, self.pieces = batch, pieces
        self.codes, self.flags = batch.codes, batch.flags
        self.kinds = character_classes()[batch.codes]
        self.apart = (self.kinds & _APART) != 0
        self.begins, self.ends = pieces.starts.copy(), pieces.ends.copy()

    def words(self) -> Spans:
        """Spans between the edges of tokens that stand apart, cuts, and blanks."""
        self._strip()
        cuts = [*self._clitics(), self._units()]
        self._cut_infixes()
        apart, codes = self.apart, self.codes
        edges = np.zeros(len(apart) + 1, dtype=bool)
        edges[1:] = apart
        edges[:-1] |= apart
        runs = np.flatnonzero(apart[1:] & apart[:-1] & (codes[1:] == codes[:-1])) + 1
        edges[runs[(codes[runs] == _POINT) | (codes[runs] == _HYPHEN)]] = False
        for places in (self.pieces.starts, self.pieces.ends, *cuts):
            edges[places] = True
        places = np.flatnonzero(edges)
        word = np.ones(len(places), dtype=bool)
        word[np.searchsorted(places, self.pieces.ends)] = False
        first = np.flatnonzero(word)
        return self.batch.spans(places[first], places[first + 1])

    def _strip(self) -> None:
        """Set marks at both ends of each piece apart; what is left between `begins` and `ends` is its core."""
        opens, closes = (self.kinds & _OPENS) != 0, (self.kinds & _CLOSES) != 0
        points = np.flatnonzero(self.codes == _POINT)
        ellipsis = points[(self.codes[points - 1] == _POINT) | (self.codes[points + 1] == _POINT)]
        opens[ellipsis] = self.apart[ellipsis] = True
        closes[points[self._closes_sentence(points)]] = closes[ellipsis] = True
        plus = np.flatnonzero(self.codes == _PLUS)
        opens[plus] = (self.flags[plus + 1] & DIGIT) == 0
        # "5+", "5%", "5$"; the currency signs are those that open and do not close.
        after = np.flatnonzero(opens & ~closes)
        closes[after] = ((self.flags[after - 1] & DIGIT) != 0) & (self.codes[after] != ord("="))
        self._advance(opens, closes)
        self._join_abbreviations()
        for starts, ends in ((self.pieces.starts, self.begins), (self.ends, self.pieces.ends)):
            self.apart[_inside(starts, ends)] = True

    def _advance(self, opens: Mask, closes: Mask) -> None:
        starts, ends = self.pieces.starts, self.pieces.ends
        some = np.flatnonzero(opens[starts])
        stops = np.flatnonzero(~opens)
        self.begins[some] = np.minimum(stops[np.searchsorted(stops, starts[some])], ends[some])
        some = np.flatnonzero(closes[ends - 1])
        stops = np.flatnonzero(~closes)
        self.ends[some] = stops[np.searchsorted(stops, ends[some]) - 1] + 1
        self.ends = np.maximum(self.begins, self.ends)

    def _closes_sentence(self, points: Integers) -> Mask:
        """Which points come off the end: not the one of an initial ("J.") or after one ("U.S.")."""
        letter, other = self.flags[points - 1], self.flags[points - 2]
        upper = (self.kinds[points - 1] & _UPPER) != 0
        ends = ((letter & (ALPHABETIC | DIGIT)) != 0) | ((self.kinds[points - 1] & _CLOSES) != 0)
        ends |= np.isin(self.codes[points - 1], (_PERCENT, _PLUS, _HYPHEN, _SQUARE))
        return ends & (~upper | (((letter | other) & LOWER == 0) & ((letter & other & ALPHABETIC) != 0)))

    def _join_abbreviations(self) -> None:
        """Give the point after an abbreviation or a single letter back to the core."""
        some = np.flatnonzero((self.codes[self.ends] == _POINT) & (self.begins < self.ends))
        some = some[self.codes[self.ends[some] + 1] != _POINT]
        begins, ends = self.begins[some], self.ends[some]
        letter = (ends - begins == 1) & ((self.flags[begins] & ALPHABETIC) != 0)
        self.ends[some[letter | self._is_one_of(begins, ends + 1, _ABBREVIATIONS)]] += 1

    def _clitics(self) -> list[Integers]:
        """Where 's, 'd, 'm, 'll, 've, 're and n't begin at the end of a core."""
        marks = np.flatnonzero(np.isin(self.codes, [ord(mark) for mark in _APOSTROPHES]))
        marks = marks[(self.flags[marks - 1] & (ALPHABETIC | DIGIT) != 0) & (self.flags[marks + 1] & ALPHABETIC != 0)]
        ends = self.ends[self._piece_of(marks)]
        negated = (ends - marks == 2) & self._is_letter(marks - 1, "n") & self._is_letter(marks + 1, "t")
        short = (ends - marks == 2) & self._is_letter(marks + 1, "sdm")
        long = (ends - marks == 3) & (
            (self._is_letter(marks + 1, "l") & self._is_letter(marks + 2, "l"))
            | (self._is_letter(marks + 1, "vr") & self._is_letter(marks + 2, "e"))
        )
        return [marks[negated] - 1, marks[short | long]]

    def _units(self) -> Integers:
        """Where the unit of a number ("5km", "10pm") begins at the end of a core."""
        starts = np.flatnonzero((self.flags[1:] & ALPHABETIC != 0) & (self.flags[:-1] & DIGIT != 0)) + 1
        ends = self.ends[self._piece_of(starts)]
        near = (starts < ends) & (ends - starts <= _MAX_UNIT)
        starts, ends = starts[near], ends[near]
        return starts[self._is_one_of(starts, ends, _UNITS)]

    def _cut_infixes(self) -> None:
        """Set infixes apart in cores that are no addresses."""
        places = np.flatnonzero(self.kinds & _INFIX)
        before, after, code = self.flags[places - 1], self.flags[places + 1], self.codes[places]
        word, letter = before & (ALPHABETIC | DIGIT) != 0, after & ALPHABETIC != 0
        found = word & letter & (code != _COMMA) & _any_of(code, _HYPHENS + _BETWEEN_LETTERS)
        found |= (before & ALPHABETIC != 0) & letter & (code == _COMMA)
        number = (after & DIGIT != 0) | (self.codes[places + 1] == _HYPHEN)
        found |= (before & DIGIT != 0) & number & _any_of(code, _BETWEEN_DIGITS)
        points = np.flatnonzero(self.codes == _POINT)
        lower = (self.flags[points - 1] & ALPHABETIC != 0) & (self.kinds[points - 1] & _UPPER == 0)
        lower |= self.kinds[points - 1] & _QUOTE != 0
        upper = (self.flags[points + 1] & ALPHABETIC != 0) & (self.flags[points + 1] & LOWER == 0)
        upper |= self.kinds[points + 1] & _QUOTE != 0
        infixes = np.concatenate([places[found], points[lower & upper], self._long_hyphens(places)])
        owners = self._piece_of(infixes)
        cut = (self.begins[owners] < infixes) & (infixes < self.ends[owners] - 1) & ~self._is_whole(owners)
        self.apart[infixes[cut]] = True

    def _long_hyphens(self, places: Integers) -> Integers:
        """Hyphens in runs of two or three between words."""
        hyphens = places[self.codes[places] == _HYPHEN]
        starts = hyphens[self.codes[hyphens - 1] != _HYPHEN]
        ends = hyphens[self.codes[hyphens + 1] != _HYPHEN] + 1
        some = (ends - starts > 1) & (ends - starts <= _MAX_HYPHENS)
        some &= (self.flags[starts - 1] & (ALPHABETIC | DIGIT) != 0) & (self.flags[ends] & ALPHABETIC != 0)
        return _inside(starts[some], ends[some])

    def _is_whole(self, owners: Integers) -> Mask:
        """Which pieces have a core that is not cut: addresses, and a few others."""
        listed = self._is_one_of(self.begins[owners], self.ends[owners], _WHOLE)
        points = np.flatnonzero(self.codes == _POINT)
        points = points[(self.flags[points + 1] & (ALPHABETIC | DIGIT)) != 0]
        asked = np.intersect1d(owners, self._piece_of(points))
        found = [number for number in asked.tolist() if _ADDRESS.fullmatch(self._core(number))]
        return listed | np.isin(owners, found)

    def _core(self, number: int) -> str:
        return self.codes[self.begins[number] : self.ends[number]].tobytes().decode("utf-32-le", "surrogatepass")

    def _piece_of(self, places: Integers) -> Integers:
        return np.searchsorted(self.pieces.starts, places, side="right") - 1

    def _is_letter(self, places: Integers, letters: str) -> Mask:
        return _any_of(self.codes[places], letters + letters.upper())

    def _is_one_of(self, starts: Integers, ends: Integers, words: str) -> Mask:
        """Which spans are one of the words, given with blanks between."""
        return np.isin(self.batch.hashes(Spans(starts, ends, starts)), _keys(words))


def _any_of(codes: NDArray[np.uint32], letters: str) -> Mask:
    return np.isin(codes, [ord(letter) for letter in letters])


def _inside(starts: Integers, ends: Integers) -> Integers:
    """Every place from each start to before its end."""
    lengths = ends - starts
    return np.repeat(ends - np.cumsum(lengths), lengths) + np.arange(lengths.sum())


@cache
def _keys(words: str) -> Hashes:
    listed = Texts(words.split())
    return listed.hashes(listed.spans(listed.first, listed.first + listed.sizes))
