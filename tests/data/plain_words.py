"""Words of one piece between blanks at a time, by taking marks off it: what `quality.words` does for a whole batch."""

import re
import unicodedata
from collections.abc import Iterator

_ABBREVIATIONS = frozenset({"Mr.", "Dr.", "St.", "Inc.", "p.m.", "e.g.", "Ph.D.", "Nov."})
_UNITS = frozenset({"km", "m", "t", "kg", "GB", "am", "pm", "p.m.", "K"})
_WHOLE = frozenset({"and/or", "w/o"})
_FULL_MARKS = "\u3002\uff01\uff1f\u061f\u06d4\u0964\u104b"
_QUOTES = "\"'`\u00b4\u201e\u201a\u2018\u2019\u201c\u201d\u00ab\u00bb"
_ADDRESS = re.compile(
    r"([\w+.-]{2,}://)?(\S+@)?(\d{1,3}(\.\d{1,3}){3}|(([^\W_][\w-]{0,62})?[^\W_]\.)+[a-z]{2,63})"
    r"(:\d{2,5})?([/?#]\S*)?"
)


def words(text: str) -> list[str]:
    """All words of a text in order."""
    return [word for piece in text.split() for word in _of_piece(piece)]


def _of_piece(piece: str) -> Iterator[str]:
    begin = 0
    while begin < len(piece) and _opens(piece, begin):
        begin += 1
    end = len(piece)
    while end > begin and _closes(piece, end - 1):
        end -= 1
    point = piece[end : end + 1] == "." and piece[end + 1 : end + 2] != "."
    letter = end - begin == 1 and piece[begin].isalpha()
    if point and begin < end and (letter or piece[begin : end + 1] in _ABBREVIATIONS):
        end += 1
    yield from _marks(piece[:begin])
    yield from _core(piece[begin:end])
    yield from _marks(piece[end:])


def _core(core: str) -> Iterator[str]:
    match = re.search(r"(?<=[^\W_])['\u2019](?:[sdm]|ll|ve|re)$", core, re.IGNORECASE)
    negated = re.search(r"(?<=\S)n['\u2019]t$|^n['\u2019]t$", core, re.IGNORECASE)
    unit = re.search(r"(?<=\d)[^\W\d_][^\d]{0,3}$", core)
    tail = match.start() if match else negated.start() if negated else len(core)
    if unit and unit.group() in _UNITS:
        tail = unit.start()
    cut = not (core in _WHOLE or ("." in core and _ADDRESS.fullmatch(core)))
    start = place = 0
    while place < len(core):
        if place == tail and place > start:
            yield core[start:place]
            start = place
        size = _apart(core, place, cut)
        if size:
            if place > start:
                yield core[start:place]
            yield core[place : place + size]
            start = place + size
        place += size or 1
    if start < len(core):
        yield core[start:]


def _apart(core: str, place: int, cut: bool) -> int:
    """How many characters from here are a word of their own within a core."""
    letter, after, before = core[place], core[place + 1 : place + 2], core[place - 1] if place else ""
    if points := re.match(r"\.{2,}", core[place:]):
        return points.end()
    if unicodedata.category(letter) == "So" or letter in _FULL_MARKS + "\u2026":
        return 1
    if not cut or not before:
        return 0
    if hyphens := re.match(r"-{2,}", core[place:]):
        behind = core[place + hyphens.end() : place + hyphens.end() + 1]
        if hyphens.end() <= 3 and _word(before) and behind.isalpha():
            return hyphens.end()
    joined = (
        (letter in "-\u2013\u2014~:<>=/" and _word(before) and after.isalpha())
        or (letter == "," and before.isalpha() and after.isalpha())
        or (letter in "+-*^" and before.isdigit() and (after.isdigit() or after == "-"))
        or (letter == "." and _lower(before) and _upper(after))
    )
    return int(joined)


def _marks(marks: str) -> list[str]:
    return re.findall(r"\.+|-+|.", marks)


def _opens(piece: str, place: int) -> bool:
    letter = piece[place]
    if letter == "+":
        return not piece[place + 1 : place + 2].isdigit()
    return _is_mark(letter) or unicodedata.category(letter) in ("Sc", "So") or letter in "%=" or _ellipsis(piece, place)


def _closes(piece: str, place: int) -> bool:
    letter, before = piece[place], piece[place - 1] if place else " "
    if letter == ".":
        return _ellipsis(piece, place) or _ends_sentence(before, piece[place - 2] if place > 1 else " ")
    if letter in "+%" or unicodedata.category(letter) == "Sc":
        return before.isdigit()
    return _is_mark(letter) or unicodedata.category(letter) == "So"


def _ends_sentence(before: str, earlier: str) -> bool:
    if unicodedata.category(before) == "Lu":
        return earlier.isalpha() and not earlier.islower()
    return before.isalpha() or before.isdigit() or _is_mark(before) or before in "%+-\u00b2" or _is_icon(before)


def _is_icon(letter: str) -> bool:
    return unicodedata.category(letter) == "So"


def _is_mark(letter: str) -> bool:
    if letter in _FULL_MARKS + "<>`\u00b4_\u2014\u2013":
        return True
    return unicodedata.category(letter) in ("Ps", "Pe", "Pi", "Pf", "Po") and letter not in "./@\\%"


def _ellipsis(piece: str, place: int) -> bool:
    return piece[place] == "." and "." in (piece[place - 1 : place], piece[place + 1 : place + 2])


def _word(letter: str) -> bool:
    return letter.isalpha() or letter.isdigit()


def _lower(letter: str) -> bool:
    return letter != "" and (letter in _QUOTES or (letter.isalpha() and unicodedata.category(letter) != "Lu"))


def _upper(letter: str) -> bool:
    return letter != "" and (letter in _QUOTES or (letter.isalpha() and not letter.islower()))
