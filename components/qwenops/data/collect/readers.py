"""Turn one file into records: whole for HTML, text and code, one by one for JSON Lines, Parquet and WARC.

A record that cannot be read becomes a dropped record with a reason word; a file never stops the stage.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

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
    ".cpp": "text/x-c++",
    ".java": "text/x-java",
    ".js": "text/javascript",
    ".ts": "text/x-typescript",
    ".go": "text/x-go",
    ".rs": "text/x-rust",
    ".sh": "text/x-shellscript",
    ".sql": "text/x-sql",
}
_TEXT = "text/plain"
_PROTOCOL_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Record:
    """One record of a file: its address below the file's, media type and bytes, or the reason it was dropped."""

    anchor: str
    mime: str
    raw: bytes
    reason: str = ""


def read_records(path: str, raw: bytes, max_bytes: int) -> Iterator[Record]:
    """The records of one file, by the endings of its name; a file of unknown kind is one plain text.

    Args:
        path: Name of the file; only its endings matter.
        raw: The file.
        max_bytes: A record larger than this is dropped as "too_large".
    """
    suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
    try:
        records = _records(suffixes, raw)
        for record in records:
            yield _checked(record, max_bytes)
    except (OSError, EOFError, zlib.error, pa.ArrowException, ValueError, RecursionError):
        yield Record("", _TEXT, b"", "unreadable")


def _records(suffixes: list[str], raw: bytes) -> Iterator[Record]:
    *before, last = ["", *suffixes] if suffixes else ["", ""]
    if last == ".gz":
        content, is_whole = _inflated(raw)
        yield from _records(before, content)
        if not is_whole:  # what could be read is kept, and the account says that something is missing
            yield Record("#rest", _TEXT, b"", "truncated")
    elif last == ".zst":
        yield from _records(before, pa.input_stream(pa.py_buffer(raw), compression="zstd").read())
    elif last == ".jsonl":
        yield from _json_lines(raw)
    elif last == ".json":
        yield from _json(raw)
    elif last == ".parquet":
        yield from _parquet(raw)
    elif last == ".warc":
        yield from _warc(raw)
    else:
        yield Record("", _MIME.get(last, _TEXT), raw)


def _inflated(raw: bytes) -> tuple[bytes, bool]:
    """The content of all members of a gzip file, and whether the last one is whole."""
    pieces: list[bytes] = []
    while raw:
        member = zlib.decompressobj(wbits=31)
        pieces.append(member.decompress(raw) + member.flush())
        if not member.eof:
            return b"".join(pieces), False
        raw = member.unused_data.lstrip(b"\0")
    return b"".join(pieces), True


def _json_lines(raw: bytes) -> Iterator[Record]:
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if line.strip():
            try:
                yield _from_value(f"#{number}", json.loads(line))
            except (ValueError, RecursionError):
                yield Record(f"#{number}", _TEXT, line[:1000], "unreadable")


def _json(raw: bytes) -> Iterator[Record]:
    value = json.loads(raw)
    for number, item in enumerate(value if isinstance(value, list) else [value], start=1):
        yield _from_value(f"#{number}", item)


def _parquet(raw: bytes) -> Iterator[Record]:
    number = 0
    for batch in pq.ParquetFile(io.BytesIO(raw)).iter_batches(batch_size=1000):
        for row in batch.to_pylist():
            number += 1
            yield _from_value(f"#{number}", row)


def _from_value(anchor: str, value: Any) -> Record:
    """A record from JSON: a string, or an object whose text lies under "text", "content" or "html"."""
    mime = _TEXT
    if isinstance(value, dict):
        if "text" not in value and "content" not in value and "html" in value:
            mime = "text/html"
        value = value.get("text", value.get("content", value.get("html")))
    if isinstance(value, bytes):
        return Record(anchor, mime, value)
    if not isinstance(value, str):
        return Record(anchor, mime, b"", "no_text")
    return Record(anchor, mime, value.encode("utf-8", "replace"))


def _warc(raw: bytes) -> Iterator[Record]:
    """HTML responses of a WARC file: each record is headers, an empty line, `Content-Length` bytes."""
    place = raw.find(b"WARC/")
    while 0 <= place < len(raw):
        end = raw.find(_PROTOCOL_END, place)
        if end < 0:
            return
        headers = _headers(raw[place:end])
        start = end + len(_PROTOCOL_END)
        length = int(headers.get("content-length", "0"))
        if start + length > len(raw):
            yield Record(headers.get("warc-target-uri", "#rest"), _TEXT, b"", "truncated")
        elif headers.get("warc-type") == "response":
            yield _response(headers.get("warc-target-uri", ""), raw[start : start + length])
        place = raw.find(b"WARC/", start + length)


def _response(address: str, raw: bytes) -> Record:
    head, _, body = raw.partition(_PROTOCOL_END)
    headers = _headers(head)
    if headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    mime = headers.get("content-type", "").split(";")[0].strip() or "text/html"
    return Record(address, mime, body, "" if mime.startswith("text/") or "html" in mime else "not_text")


def _headers(block: bytes) -> dict[str, str]:
    lines = block.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _checked(record: Record, max_bytes: int) -> Record:
    if record.reason:
        return record
    if not record.raw.strip():
        return Record(record.anchor, record.mime, b"", "empty")
    if len(record.raw) > max_bytes:
        return Record(record.anchor, record.mime, record.raw[:1000], "too_large")
    return record
