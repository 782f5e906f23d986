"""Bytes to clean text: charset, Unicode and whitespace.

Each function refuses with a reason word instead of raising: a bad page is an ordinary event on the web.
"""

import re
import unicodedata

from resiliparse.parse.encoding import bytes_to_str, detect_encoding

_INVISIBLE = "\ufffd\ufeff\u200b\u2060"
_CONTROL = re.compile(rf"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{_INVISIBLE}]")
_CONTROL_BYTES = bytes(number for number in (*range(32), 127) if number not in b"\t\n\r")
_CONTROL_PAIR = re.compile(rb"\xc2[\x80-\x9f]")
# Blanks of other widths and no-break ones; an ideographic blank that indents a paragraph is typography, not structure.
_SPACES = re.compile(r"[^\S\n\t ]")
_INDENT = re.compile(r"^\u3000+", re.MULTILINE)
_TRAILING = re.compile(r"[^\S\n]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{4,}")


def decode(raw: bytes) -> str:
    """Decode by byte-order mark, UTF-8, then the declared or detected charset; what stays undecodable is U+FFFD."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        name = detect_encoding(raw[:65536], html5_compatible=True, from_html_meta=True) or "utf-8"
        return bytes_to_str(raw, name, errors="replace")


def damaged_share(text: str) -> float:
    """Share of characters that are control or replacement characters."""
    # Bytes, since a regular expression looks at every character of a page and these methods do not.
    data = text.encode("utf-8", "surrogatepass")
    damaged = len(data) - len(data.translate(None, _CONTROL_BYTES)) + len(_CONTROL_PAIR.findall(data))
    return (damaged + sum(text.count(letter) for letter in _INVISIBLE)) / max(len(text), 1)


def normalise(text: str) -> str:
    """NFC, plain blanks, no blanks at the ends of lines, at most two blank lines in a row, no control characters.

    Blanks within and before lines stay: any document may hold a program, whose indentation is part of it.
    """
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _SPACES.sub(" ", _INDENT.sub("", unicodedata.normalize("NFC", text)))
    return _BLANK_LINES.sub("\n\n\n", _TRAILING.sub("", text)).strip("\n")


def normalise_code(text: str) -> str:
    """NFC and line ends; spaces and indentation are part of a program."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _CONTROL.sub("", text).strip("\n")
