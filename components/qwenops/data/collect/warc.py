"""Read the pages of a WARC file, one record in memory at a time; a bad record costs that record and no other.

FastWARC parses records and HTTP heads. It stops at the first record whose length is wrong or whose gzip member is
damaged, and so does warcio; so records are cut out here by their lengths, each is handed over by itself, and where the
next record does not begin behind one, it is dropped and the next is looked for behind its head.
"""

import io
import re
import zlib
from collections.abc import Iterator
from email.message import Message

import brotli
import pyarrow as pa
from fastwarc.warc import ArchiveIterator, HeaderMap, WarcRecord, WarcRecordType

from qwenops.data.collect.formats import HEAD_BYTES, kind_of
from qwenops.data.collect.records import HTML, TEXT, UNSUPPORTED, Record
from qwenops.data.collect.streams import Chunk

_MARK, _HTTP = b"WARC/", b"HTTP/"
_HEAD = re.compile(rb"WARC/\d\.\d[ \t]*\r?\n(?=[\w-]+[ \t]*:)")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
# Of a head in small letters: a search for fixed bytes is much cheaper than one that ignores the case.
_LENGTH = re.compile(rb"\ncontent-length[ \t]*:[ \t]*(\d{1,18})[ \t]*\r?\n")
_PAGE = re.compile(rb"\nwarc-type[ \t]*:[ \t]*(response|resource|conversion)[ \t]*\r?\n")
_ADDRESS = re.compile(rb"\nwarc-target-uri[ \t]*:[ \t]*<?([^\s>]+)")
# Room for the protocol's own headers beside a body of the largest size.
_HEAD_BYTES = 1 << 16
# The next record begins within so many bytes behind one: two line ends, and some writers' more.
_GAP_BYTES = 64
_TEXTS = (TEXT, HTML, "text/markdown")


def read_warc(pieces: Iterator[Chunk], max_bytes: int) -> Iterator[Record]:
    """The pages: responses, resources and conversions (WET); other kinds of record hold none and are passed over."""
    tape, number = _Tape(pieces), 0
    while tape.seek_head():
        number += 1
        head = tape.head()
        small = head.lower()
        anchor, stated, is_page = _address(head) or f"#{number}", _LENGTH.search(small), _PAGE.search(small) is not None
        length = int(stated.group(1)) if stated else 0
        block = tape.take(len(head), length, max_bytes + _HEAD_BYTES) if stated else None
        if block is None:
            tape.drop(max(len(head), 1))
            yield Record(anchor, TEXT, b"", "unreadable" if tape.has_more() else "truncated")
        elif len(block) < len(head) + length and is_page:
            yield Record(anchor, TEXT, block[len(head) :][:1000], "too_large")
        elif is_page:
            yield _page(anchor, len(head), block, max_bytes)
    for anchor in tape.lost or ([] if number else ["#rest"]):
        yield Record(anchor, TEXT, b"", "unreadable")


def _address(head: bytes) -> str:
    found = _ADDRESS.search(head.lower())
    return head[slice(*found.span(1))].decode("utf-8", "replace") if found else ""


class _Tape:
    """What has been read and is not yet done with, where damaged members ended, and the addresses of lost ones."""

    def __init__(self, pieces: Iterator[Chunk]) -> None:
        self._pieces, self._held, self._damage = pieces, bytearray(), list[int]()
        self.lost: list[str] = []

    def has_more(self) -> bool:
        """Whether another head can be found."""
        return self._find_head() >= 0

    def seek_head(self) -> bool:
        """Go to the next head; False at the end."""
        place = self._find_head()
        self.drop(place if place >= 0 else len(self._held))
        return place >= 0

    def head(self) -> bytes:
        """The head that begins here, with the empty line; up to the next damage or limit where that is missing."""
        while (end := _HEAD_END.search(self._held)) is None and len(self._held) < _HEAD_BYTES and self._read():
            pass
        return bytes(self._held[: end.end() if end else len(_MARK)])

    def take(self, head: int, length: int, most: int) -> bytes | None:
        """Take a record, head and body, at most `most` bytes of it; None, and nothing taken, where it is bad."""
        end = head + length
        while len(self._held) < min(end, most) and self._read():
            pass
        block = bytes(self._held[: min(end, most)])
        skipped = 0
        while end - skipped > len(self._held):  # too large to hold: its first bytes stay, in case the length is wrong
            if not self._read():
                return None
            surplus = max(min(len(self._held), end - skipped) - most, 0)
            del self._held[most : most + surplus]
            self._damage = [place - surplus if place > most else place for place in self._damage]
            skipped += surplus
        rest = end - skipped
        while len(self._held) < rest + _GAP_BYTES and self._read():
            pass
        after = bytes(self._held[rest : rest + _GAP_BYTES])
        gap = len(after) - len(after.lstrip(b"\r\n"))
        if self._damage and self._damage[0] <= rest + gap:
            return None
        if after[gap:] and not after[gap:].startswith(_MARK[: len(after) - gap]):
            return None
        self.drop(rest)
        return block

    def drop(self, count: int) -> None:
        """Forget the first bytes, and the damage in them."""
        self._damage = [place - count for place in self._damage if place > count]
        del self._held[:count]

    def _find_head(self) -> int:
        start = 0
        while (found := _HEAD.search(self._held, start)) is None:
            start = max(len(self._held) - 32, 0)
            if not self._read():
                return -1
        return found.start()

    def _read(self) -> bool:
        for piece, fate in self._pieces:
            if fate == "lost":
                self.lost.append(_address(piece) or "#rest")
            elif fate == "damaged":
                self._damage.append(len(self._held))
            elif piece:
                self._held += piece
                return True
        return False


def _page(anchor: str, head: int, block: bytes, max_bytes: int) -> Record:
    """The page of a whole record with a head of `head` bytes."""
    try:
        record = _parsed(block)
        stated, body = record.headers.get("Content-Type"), block[head:]
        date = (record.headers.get("WARC-Date") or "")[:10]
        if record.record_type == WarcRecordType.response and body.startswith(_HTTP):
            headers, body = _answer(record, block)
            if not 200 <= (headers.status_code or 200) < 300:
                return Record(anchor, TEXT, body[:1000], "http_status", date)
            stated = headers.get("Content-Type")
            body = decode_body(body, ",".join(headers.get_multiple("Content-Encoding")), max_bytes)
    except OSError:
        return Record(anchor, TEXT, block[head:][:1000], "unreadable")
    mime, reason = _judged(_media_type(stated), body)
    charset = _charset(stated)
    return Record(anchor, f"{mime}; charset={charset}" if charset else mime, body, reason, date)


def decode_body(body: bytes, codings: str, max_bytes: int) -> bytes:
    """A body without its content codings, at most a byte more than `max_bytes`.

    A body that is not coded as it says is stored decoded, as Common Crawl does, and is given back as it is.
    """
    for coding in reversed([name.strip().lower() for name in codings.split(",")]):
        try:
            body = _without(coding, body, max_bytes + 1)
        except (zlib.error, brotli.error, pa.ArrowException, OSError):
            return body
    return body


def _without(coding: str, body: bytes, most: int) -> bytes:
    if coding in ("gzip", "x-gzip"):
        return zlib.decompressobj(wbits=31).decompress(body, most)
    if coding == "deflate":
        try:
            return zlib.decompressobj().decompress(body, most)
        except zlib.error:  # some servers leave the frame of zlib out
            return zlib.decompressobj(wbits=-15).decompress(body, most)
    if coding == "br":
        return brotli.decompress(body)[:most]
    if coding == "zstd":
        return pa.input_stream(io.BytesIO(body), compression="zstd").read(most)
    return body


def _parsed(block: bytes) -> WarcRecord:
    for record in ArchiveIterator(io.BytesIO(block), parse_http=False, quirks_mode=True):
        return record
    raise OSError("no record")


def _answer(record: WarcRecord, block: bytes) -> tuple[HeaderMap, bytes]:
    """Head and body of an HTTP answer, without chunk sizes; the body as it is where it is not chunked as it says.

    Raises:
        OSError: the head cannot be read.
    """
    for auto_decode in ("transfer", "none"):
        record.is_http = True
        try:
            record.parse_http(auto_decode=auto_decode, quirks_mode=True)
            return record.http_headers, record.reader.read()
        except OSError:
            record = _parsed(block)
    raise OSError("no HTTP head")


def _media_type(stated: str | None) -> str:
    return (stated or "").split(";")[0].strip().lower()


def _charset(stated: str | None) -> str:
    message = Message()
    message["Content-Type"] = stated or ""
    return message.get_content_charset("")


def _judged(mime: str, body: bytes) -> tuple[str, str]:
    """Media type of a body and why it is no text, by what it says and what it begins with."""
    if mime and mime not in _TEXTS and not ("html" in mime or mime.startswith("text/x-")):
        return mime, "not_text"
    kind = kind_of("a.html" if "html" in mime else "", body[:HEAD_BYTES])
    if kind.startswith(UNSUPPORTED):
        return mime or TEXT, kind
    return (kind if kind in _TEXTS else mime or TEXT), ""
