"""Turn one file into records: whole for HTML, text and code, one by one for JSON Lines, Parquet and WARC.

A record that cannot be read becomes a dropped record with a reason word; a file never stops the stage.
"""

import bz2
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from qwenops.data.collect.formats import (
    HEAD_BYTES,
    compression_by_name,
    detect_compression,
    is_binary,
    kind_of,
    uncompressed_name,
)
from qwenops.data.collect.records import TEXT, UNSUPPORTED, Record, record_of
from qwenops.data.collect.streams import Chunk, GzipReader, gzip_chunks, stream_chunks
from qwenops.data.collect.warc import read_warc

_BLOCK_BYTES = 1 << 20
_BATCH_ROWS = 100
# An escaped character of JSON takes six bytes at most; a block more for the other fields of an object.
_JSON_EXPANSION = 6
_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException, ValueError, RecursionError)
_UNPACKERS: dict[str, Callable[[BinaryIO], Any]] = {
    "zstd": partial(pa.input_stream, compression="zstd"),
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}


def read_records(path: str, stream: BinaryIO, max_bytes: int) -> Iterator[Record]:
    """The records of one file, by its first bytes and the endings of its name; what is left is one plain text.

    The file is read as a stream: of JSON Lines, WARC, Parquet and their packed forms one record is held at a time.

    Args:
        path: Name of the file; only its endings matter.
        stream: The file. A failure to read it on is one dropped record, "unreadable", after those before it.
        max_bytes: A record larger than this is dropped as "too_large".
    """
    try:
        for record in _records(path, io.BufferedReader(_Raw(stream), _BLOCK_BYTES), max_bytes):
            yield _checked(record, max_bytes)
    except _ERRORS:
        yield Record("", TEXT, b"", "unreadable")


class _Raw(io.RawIOBase):
    """Any readable object as a raw stream, so that its first bytes can be looked at."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(place, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        block = self._stream.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)


def _records(name: str, stream: io.BufferedReader, max_bytes: int) -> Iterator[Record]:
    head = stream.peek(HEAD_BYTES)[:HEAD_BYTES]
    # Where the first byte is damaged the name says how to go on: members behind it may be whole.
    packed = detect_compression(head) or (compression_by_name(name) if is_binary(head) else "")
    if packed == "gzip":
        yield from _gzip(uncompressed_name(name), stream, max_bytes)
    elif packed:
        unpacked = _Raw(_UNPACKERS[packed](stream))
        yield from _records(uncompressed_name(name), io.BufferedReader(unpacked, _BLOCK_BYTES), max_bytes)
    else:
        yield from _of_kind(kind_of(uncompressed_name(name), head), stream, stream_chunks(stream), max_bytes)


def _gzip(name: str, stream: io.BufferedReader, max_bytes: int) -> Iterator[Record]:
    try:
        head = zlib.decompressobj(wbits=31).decompress(stream.peek(HEAD_BYTES), HEAD_BYTES)
    except zlib.error:
        head = b""  # the name alone says what it was
    kind = "" if detect_compression(head) else kind_of(name, head)
    if kind == "warc":  # member by member, since each is a record and one that is damaged costs that record alone
        yield from _of_kind(kind, stream, gzip_chunks(stream), max_bytes)
        return
    content = GzipReader(stream)
    yield from _records(name, io.BufferedReader(content, _BLOCK_BYTES), max_bytes)
    if content.broke_off:  # what could be read is kept, and the account says that something is missing
        yield Record("#rest", TEXT, b"", "truncated")


def _of_kind(kind: str, stream: io.BufferedReader, pieces: Iterator[Chunk], max_bytes: int) -> Iterator[Record]:
    if kind.startswith(UNSUPPORTED):
        yield Record("", TEXT, b"", kind)
    elif kind == "lines":
        yield from _json_lines(stream, max_bytes)
    elif kind == "json":
        yield from _json(stream.read())
    elif kind == "parquet":
        yield from _parquet(stream)
    elif kind == "warc":
        yield from read_warc(pieces, max_bytes)
    else:
        yield Record("", kind, stream.read(max_bytes + 1))


def _json_lines(stream: BinaryIO, max_bytes: int) -> Iterator[Record]:
    longest = _JSON_EXPANSION * max_bytes + _BLOCK_BYTES
    number = 0
    while line := stream.readline(longest):
        number += 1
        if len(line) == longest and not line.endswith(b"\n"):
            while (rest := stream.readline(_BLOCK_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield Record(f"#{number}", TEXT, line[:1000], "too_large")
        elif line.strip():
            try:
                yield record_of(f"#{number}", json.loads(line))
            except (ValueError, RecursionError):
                yield Record(f"#{number}", TEXT, line[:1000], "unreadable")


def _json(raw: bytes) -> Iterator[Record]:
    value = json.loads(raw)
    for number, item in enumerate(value if isinstance(value, list) else [value], start=1):
        yield record_of(f"#{number}", item)


def _parquet(stream: BinaryIO) -> Iterator[Record]:
    file = pq.ParquetFile(stream if stream.seekable() else io.BytesIO(stream.read()))
    number = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS):
        for row in batch.to_pylist():
            number += 1
            yield record_of(f"#{number}", row)


def _checked(record: Record, max_bytes: int) -> Record:
    if record.reason:
        return record
    if not record.raw.strip():
        return Record(record.anchor, record.mime, b"", "empty")
    if len(record.raw) > max_bytes:
        return Record(record.anchor, record.mime, record.raw[:1000], "too_large")
    return record
