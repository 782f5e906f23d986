"""Read the HTML responses of a WARC file, one record in memory at a time."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_TEXT = "text/plain"
_MARK = b"WARC/"
_LINE_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 20
_HEAD_END = b"\r\n\r\n"
# Room for the protocol's own headers beside a body of the largest size.
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class Record:
    """One record of a file: its address below the file's, media type and bytes, or the reason it was dropped.

    `fetched_at` is the day it was fetched where the file says so, otherwise empty.
    """

    anchor: str
    mime: str
    raw: bytes
    reason: str = ""
    fetched_at: str = ""


def read_warc(stream: BinaryIO, max_bytes: int) -> Iterator[Record]:
    """The responses: each record is a line `WARC/...`, headers, an empty line and `Content-Length` bytes."""
    while line := stream.readline(_LINE_BYTES):
        if not line.startswith(_MARK):
            continue
        headers = _read_headers(stream)
        if headers is None:
            yield Record("#rest", _TEXT, b"", "truncated")
            return
        address, date = headers.get("warc-target-uri", ""), headers.get("warc-date", "")[:10]
        length = int(headers.get("content-length", "0"))
        body = stream.read(min(length, max_bytes + _HEAD_BYTES))
        if not _skip(stream, length - len(body)):
            yield Record(address or "#rest", _TEXT, b"", "truncated", date)
        elif headers.get("warc-type") == "response":
            yield _response(address, body, date, max_bytes)


def _response(address: str, raw: bytes, date: str, max_bytes: int) -> Record:
    head, _, body = raw.partition(_HEAD_END)
    headers = _fields(head.split(b"\r\n")[1:])
    if headers.get("content-encoding") == "gzip":
        body = zlib.decompressobj(wbits=31).decompress(body, max_bytes + 1)
    mime = headers.get("content-type", "").split(";")[0].strip() or "text/html"
    return Record(address, mime, body, "" if mime.startswith("text/") or "html" in mime else "not_text", date)


def _read_headers(stream: BinaryIO) -> dict[str, str] | None:
    """The fields up to the empty line; None when the file ends before it."""
    lines: list[bytes] = []
    while (line := stream.readline(_LINE_BYTES)).strip():
        lines.append(line)
    return _fields(lines) if line else None


def _fields(lines: list[bytes]) -> dict[str, str]:
    pairs = (line.decode("latin-1").partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _skip(stream: BinaryIO, count: int) -> bool:
    """Read `count` bytes away; whether they were there."""
    while count > 0:
        block = stream.read(min(count, _BLOCK_BYTES))
        if not block:
            return False
        count -= len(block)
    return True
