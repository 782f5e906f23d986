"""Bytes to clean text: charset, Unicode and whitespace.

Each function refuses with a reason word instead of raising: a bad page is an ordinary event on the web.
"""

import codecs
import re
import unicodedata

from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

_INVISIBLE = "\ufffd\ufeff\u200b\u2060"
_CONTROL = re.compile(rf"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{_INVISIBLE}]")
_CONTROL_BYTES = bytes(number for number in (*range(32), 127) if number not in b"\t\n\r")
# ISO-2022 writes Japanese, Korean and Chinese in ASCII, between escapes.
_SHIFT = b"\x1b$"
_WESTERN = "cp1252"
_WIDER = {"euc_kr": "cp949", "shift_jis": "cp932", "gb2312": "gb18030", "gbk": "gb18030"}
_CONTROL_PAIR = re.compile(rb"\xc2[\x80-\x9f]")
# Blanks of other widths and no-break ones; an ideographic blank that indents a paragraph is typography, not structure.
_SPACES = re.compile(r"[^\S\n\t ]")
_INDENT = re.compile(r"^\u3000+", re.MULTILINE)
_TRAILING = re.compile(r"[^\S\n]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{4,}")


def decode(raw: bytes, stated: str = "") -> str:
    """Decode by byte-order mark, UTF-8, then the charset that is stated, declared or detected.

    Args:
        raw: The bytes.
        stated: The charset that a server stated. A Western one says nothing: it is what servers state unasked.

    Returns:
        The text; what stays undecodable is U+FFFD.
    """
    names = ["utf-8-sig"]
    if raw.isascii() and _SHIFT in raw:
        names = []
    if (known := map_encoding_to_html5(stated, fallback_utf8=False)) and known != _WESTERN:
        names.append(_codec(known))
    for name in names:
        try:
            return raw.decode(name)
        except UnicodeDecodeError:
            continue
    found = detect_encoding(raw[:65536], html5_compatible=False, from_html_meta=True) or ""
    # Charsets that are not of the web, as Johab, keep their own name.
    return bytes_to_str(raw, _codec(map_encoding_to_html5(found, fallback_utf8=False) or found), errors="replace")


def _codec(name: str) -> str:
    """Python's codec of a charset, in the wider form that browsers read under the same name."""
    try:
        found = codecs.lookup(name).name
    except LookupError:
        return "utf-8"
    return _WIDER.get(found, found)


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
