"""What kind of file this is: by its first bytes, and by its name where plain text leaves it open.

A name may lie: a page saved without an ending, rows in a `.txt`, a gzip file without `.gz`. Bytes that a reader here
does not know are refused by name, never taken for text.
"""

import csv
import json
import re
from pathlib import PurePosixPath

import filetype

HEAD_BYTES = 1 << 14
_MIME = {
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "text/html",
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".rst": "text/x-rst",
    ".py": "text/x-python",
    ".c": "text/x-c",
    ".h": "text/x-c",
    ".cc": "text/x-c++",
    ".cpp": "text/x-c++",
    ".hpp": "text/x-c++",
    ".cs": "text/x-csharp",
    ".java": "text/x-java",
    ".js": "text/javascript",
    ".jsx": "text/javascript",
    ".ts": "text/x-typescript",
    ".tsx": "text/x-typescript",
    ".go": "text/x-go",
    ".kt": "text/x-kotlin",
    ".php": "text/x-php",
    ".rb": "text/x-ruby",
    ".rs": "text/x-rust",
    ".scala": "text/x-scala",
    ".sh": "text/x-shellscript",
    ".sql": "text/x-sql",
    ".swift": "text/x-swift",
}
PLAIN = "text/plain"
_PACKED = {b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ\0": "xz"}
_BINARY = {b"PAR1": "parquet", b"WARC/": "warc", b"ARROW1": "unsupported_arrow", b"Obj\x01": "unsupported_avro"}
_NAMED = {".parquet": "parquet", ".warc": "warc", ".wet": "warc", ".wat": "warc"}
_PACKED_ENDINGS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
_JSON_ENDINGS = (".json", ".jsonl", ".ndjson", ".jsonlines")
_REFUSED_ENDINGS = {
    **dict.fromkeys((".csv", ".tsv", ".psv"), "unsupported_csv"),
    **dict.fromkeys((".pdf", ".docx", ".xlsx", ".pptx", ".odt", ".epub"), ""),
    ".css": "unsupported_css",
    ".xml": "unsupported_xml",
}
# PDF, RTF and PostScript may hold nothing but letters.
_TEXTUAL = (b"%PDF-", b"{\\rtf", b"%!PS")
_CONTROL = bytes({*range(0x20)} - {*b"\t\n\v\f\r\x1b"})
_PAGE = re.compile(rb"(?i)(<!doctype\s+html|<html[\s>]|<head[\s>]|<body[\s>])")
# An object, or an array of objects, over several lines: a notebook, a map, an answer of some interface.
_JSON = re.compile(rb'(\[\s*)?\{\s*"[^"\n]*"\s*:')
_TABLE_ROWS, _TABLE_COLUMNS = 8, 3


def detect_compression(head: bytes) -> str:
    """The compression of a file: gzip, zstd, bz2 or xz, or "" for none."""
    return next((name for magic, name in _PACKED.items() if head.startswith(magic)), "")


def is_binary(head: bytes) -> bool:
    """Whether there are bytes that no text holds; UTF-16 counts as binary."""
    return len(head.translate(None, _CONTROL)) < len(head)


def compression_by_name(name: str) -> str:
    """The compression that the last ending of a file's name promises, or ""."""
    return _PACKED_ENDINGS.get(PurePosixPath(name).suffix.lower(), "")


def uncompressed_name(name: str) -> str:
    """The name without the ending of its compression."""
    return name[: -len(PurePosixPath(name).suffix)] if compression_by_name(name) else name


def kind_of(name: str, head: bytes) -> str:
    """What a file is, from its name and its first `HEAD_BYTES` bytes, unpacked.

    Returns:
        "json", "lines" (JSON Lines), "parquet", "warc", "unsupported_..." for what no reader here knows, or the media
        type of a text.
    """
    ending = PurePosixPath(name).suffix.lower()
    known = next((kind for magic, kind in _BINARY.items() if head.startswith(magic)), "")
    if known or ending in _NAMED:
        return known or _NAMED[ending]
    # Text that happens to begin like a picture or a program is asked no further.
    if (head.startswith(_TEXTUAL) or is_binary(head)) and (guess := filetype.guess(head)) is not None:
        return f"unsupported_{guess.extension}"
    if ending in _REFUSED_ENDINGS and not (ending == ".xml" and _PAGE.search(head)):
        return _REFUSED_ENDINGS[ending] or f"unsupported_{ending[1:]}"
    if ending in _JSON_ENDINGS:
        return "json" if ending == ".json" and not _first_line_is_object(head) else "lines"
    if ending in _MIME and ending != ".txt" and not (ending == ".php" and b"<?" not in head):
        return _MIME[ending]
    return _kind_of_text(head.removeprefix(b"\xef\xbb\xbf").lstrip())


def _kind_of_text(head: bytes) -> str:
    """Plain text, or what it turns out to be."""
    if _PAGE.match(head) or (head.startswith((b"<?xml", b"<!--")) and _PAGE.search(head)):
        return "text/html"
    if head.startswith(b"<?xml"):
        return "unsupported_xml"
    if _first_line_is_object(head):
        return "lines"
    if _JSON.match(head):
        return "json"
    return "unsupported_csv" if _is_table(head) else PLAIN


def _first_line_is_object(head: bytes) -> bool:
    first, _, _ = head.lstrip().partition(b"\n")
    if not first.startswith(b"{"):
        return False
    if len(first) + 1 >= HEAD_BYTES:  # cut off: one long line that opens like a row
        return re.match(rb'\{\s*"[^"]*"\s*:', first) is not None
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _is_table(head: bytes) -> bool:
    """Whether the first lines all have the same number of cells, three at least."""
    lines = head.decode("utf-8", "replace").splitlines()[: _TABLE_ROWS + 1]
    lines = lines if len(head) < HEAD_BYTES else lines[:-1]
    if len(lines) < _TABLE_ROWS:
        return False
    for mark in ",;\t":
        try:
            sizes = {len(row) for row in csv.reader(lines, delimiter=mark)}
        except csv.Error:
            continue
        if len(sizes) == 1 and sizes.pop() >= _TABLE_COLUMNS:
            return True
    return False
