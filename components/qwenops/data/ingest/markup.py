"""How deeply the elements of a page are nested, counted before any parser sees it.

Parsers take quadratic time for tens of thousands of open elements. Tags are found in one array of bytes, since a
regular expression over every tag costs as much as extracting the text.
"""

import numpy as np
from numpy.typing import NDArray

# Void elements never hold anything, and these other ones are closed by their next sibling.
_FLAT_TAGS = (
    "area base br col embed hr img input link meta param source track wbr p li dt dd td th tr option thead tbody"
)
_NAME_BYTES = 8
_OPEN, _CLOSE, _SLASH = (ord(mark) for mark in "<>/")

Bytes = NDArray[np.uint8]


def nesting_depth(html: str, limit: int) -> int:
    """Depth of open elements, counted up to `limit` + 1."""
    codes = np.frombuffer(html.encode("ascii", "replace") + b" " * _NAME_BYTES, dtype=np.uint8)
    starts, ends = _tags(codes)
    closing = codes[starts + 1] == _SLASH
    names = _names(codes, starts + 1 + closing)
    holds = (names[:, 0] != 0) & (codes[ends - 1] != _SLASH)
    holds &= ~np.isin(np.ascontiguousarray(names).view(np.uint64)[:, 0], _flat_keys())
    steps = np.where(closing, -1, 1)[holds]
    if not len(steps):
        return 0
    # A tag that closes what was never opened changes nothing, so the depth starts again at 0 there.
    sums = np.cumsum(steps)
    depth = sums - np.minimum(np.minimum.accumulate(sums), 0)
    return min(int(depth.max()), limit + 1)


def _tags(codes: Bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of < and > of every tag: the next mark after the one is the other."""
    marks = np.flatnonzero((codes == _OPEN) | (codes == _CLOSE))
    kinds = codes[marks]
    pairs = np.flatnonzero((kinds[:-1] == _OPEN) & (kinds[1:] == _CLOSE))
    return marks[pairs], marks[pairs + 1]


def _names(codes: Bytes, starts: NDArray[np.int64]) -> Bytes:
    """The first bytes of each tag's name in small letters, then zeros; only zeros where it has none: uint8 [T, 8]."""
    names = codes[np.minimum(starts[:, None] + np.arange(_NAME_BYTES), len(codes) - 1)]
    small = names | 0x20
    letter = (small >= ord("a")) & (small <= ord("z"))
    inside = letter | ((names >= ord("0")) & (names <= ord("9")))
    inside[:, 0] = letter[:, 0]
    inside = np.logical_and.accumulate(inside, axis=1)
    return np.where(inside, np.where(letter, small, names), 0).astype(np.uint8)


def _flat_keys() -> NDArray[np.uint64]:
    names = b"".join(name.encode().ljust(_NAME_BYTES, b"\0") for name in _FLAT_TAGS.split())
    return np.frombuffer(names, dtype=np.uint64)
