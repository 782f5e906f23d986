"""Bytes to clean text: charset, depth of markup, Unicode and whitespace.

Each function refuses with a reason word instead of raising: a bad page is an ordinary event on the web.
"""

import re
import unicodedata

from resiliparse.parse.encoding import bytes_to_str, detect_encoding

_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)\b[^<>]*?(/?)>")
# Void elements never hold anything, and these other ones are closed by their next sibling.
_FLAT_TAGS = frozenset(
    [
        "area",
        "base",
        "br",
        "col",
        "embed",
        "hr",
        "img",
        "input",
        "link",
        "meta",
        "param",
        "source",
        "track",
        "wbr",
        "p",
        "li",
        "dt",
        "dd",
        "td",
        "th",
        "tr",
        "option",
        "thead",
        "tbody",
    ]
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\ufeff\u200b\u2060]")
_SPACES = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r"\n{3,}")


def decode(raw: bytes) -> str:
    """Decode by byte-order mark, UTF-8, then the declared or detected charset; what stays undecodable is U+FFFD."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        name = detect_encoding(raw[:65536], html5_compatible=True, from_html_meta=True) or "utf-8"
        return bytes_to_str(raw, name, errors="replace")


def damaged_share(text: str) -> float:
    """Share of characters that are control or replacement characters."""
    return len(_CONTROL.findall(text)) / max(len(text), 1)


def nesting(html: str, limit: int) -> int:
    """Depth of open elements, counted up to `limit`: parsers need quadratic time for tens of thousands."""
    depth = deepest = 0
    for match in _TAG.finditer(html):
        closing, name, empty = match.groups()
        if empty or name.lower() in _FLAT_TAGS:
            continue
        depth = max(depth - 1, 0) if closing else depth + 1
        deepest = max(deepest, depth)
        if deepest > limit:
            break
    return deepest


def normalise(text: str) -> str:
    """NFC, single spaces, at most one blank line in a row, no control characters."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _SPACES.sub(" ", _CONTROL.sub("", text))
    return _BLANK_LINES.sub("\n\n", "\n".join(line.strip() for line in text.split("\n"))).strip()


def normalise_code(text: str) -> str:
    """NFC and line ends; spaces and indentation are part of a program."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _CONTROL.sub("", text).strip("\n")
