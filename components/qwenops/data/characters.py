"""What each Unicode character is, as tables that a whole batch of text is looked up in at once.

A batch is judged as one array of code points: classes come from a table of 0x110000 bits instead of a call per
character, and the hash of any span is the difference of two prefix sums. Tables are made once per process, in about
0.2 s.
"""

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
import regex
from numpy.typing import NDArray

from qwenops.tasks.overlap import UNSPACED_SCRIPTS

Flags = NDArray[np.uint16]
Hashes = NDArray[np.uint64]

(
    SPACE,
    ALPHABETIC,
    ALPHANUMERIC,
    WORD,
    TERMINAL,
    MARK,
    FULL_MARK,
    CLOSING,
    DIGIT,
    LOWER,
    NORMAL,
    COMBINING,
    UNSPACED,
) = (1 << place for place in range(13))

# Ends a line properly; marks that end a sentence when something closes it, and those that always do.
_TERMINAL = ".?!\"'\u2019\u201d\u3002\uff01\uff1f\uff0e\u300d\u300f\u061f\u06d4\u0964\u104b"
_MARKS = ".?!"
_FULL_MARKS = "\u3002\uff01\uff1f\u061f\u06d4\u0964\u104b"
_CLOSING = "\"'\u201d\u2019)"
_CODE_POINTS = 0x110000
# Above, no character is a letter, a digit or a blank.
ASSIGNED = 0x32400
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class CharacterTables:
    """Facts by code point.

    Attributes:
        flags: uint16 [0x110000], the bits above.
        values: uint64 [0x110000], what a character adds to the hash of a span.
        folded: uint64 [0x110000], the same of its case-folded form where that is one character.
    """

    flags: Flags
    values: Hashes
    folded: Hashes


@cache
def character_tables() -> CharacterTables:
    """The tables of this process."""
    characters = [chr(number) for number in range(_CODE_POINTS)]
    flags = np.zeros(_CODE_POINTS, dtype=np.uint16)
    for test, bit in (
        (str.isspace, SPACE | CLOSING),
        (str.isalpha, ALPHABETIC),
        (str.isalnum, ALPHANUMERIC | WORD),
        (str.isdigit, DIGIT),
        (str.islower, LOWER),
    ):
        flags[:ASSIGNED][np.fromiter(map(test, characters[:ASSIGNED]), dtype=bool, count=ASSIGNED)] |= bit
    for letters, bit in ((_TERMINAL, TERMINAL), (_MARKS, MARK), (_FULL_MARKS, FULL_MARK), (_CLOSING, CLOSING)):
        flags[[ord(letter) for letter in letters]] |= bit
    flags[ord("_")] |= WORD
    # What `tasks.overlap.words` keeps: letters, marks and numbers, and scripts whose characters are words.
    everything = "".join(characters)
    for pattern, bit in ((r"[\p{L}\p{M}\p{N}]+", NORMAL), (r"\p{M}+", COMBINING), (f"[{UNSPACED_SCRIPTS}]+", UNSPACED)):
        for found in regex.finditer(pattern, everything):
            flags[found.start() : found.end()] |= bit
    flags[(flags & COMBINING) != 0] |= WORD
    values = mix_bits(np.arange(1, _CODE_POINTS + 1, dtype=np.uint64))
    folded = np.arange(_CODE_POINTS)
    for character in characters[:ASSIGNED]:
        if (fold := character.casefold()) != character and len(fold) == 1:
            folded[ord(character)] = ord(fold)
    return CharacterTables(flags, values, values[folded])


@cache
def expanding_casefold_pattern() -> re.Pattern[str]:
    """Finds characters whose case-folded form is more than one character."""
    return re.compile("[" + "".join(c for c in map(chr, range(ASSIGNED)) if len(c.casefold()) > 1) + "]")


def mix_bits(values: Hashes) -> Hashes:
    """Spread integers over 64 bits (splitmix64), so that sums and products of them do not collide."""
    values = values * _MULTIPLIER
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
