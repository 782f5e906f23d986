"""Turn one file into records: whole for HTML, text and code, one by one for JSON Lines, Parquet and WARC.

A record that cannot be read becomes a dropped record with a reason word; a file never stops the stage.
"""

import io
import json
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from qwenops.data.collect.streams import Inflated
from qwenops.data.collect.warc import Record, read_warc

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
_TEXT = "text/plain"
_TEXT_FIELDS = ("text", "content", "html")
_BLOCK_BYTES = 1 << 20
_BATCH_ROWS = 100
# An escaped character of JSON takes six bytes at most; a block more for the other fields of an object.
_JSON_EXPANSION = 6


def read_records(path: str, stream: BinaryIO, max_bytes: int) -> Iterator[Record]:
    """The records of one file, by the endings of its name; a file of unknown kind is one plain text.

    The file is read as a stream: of JSON Lines, WARC, Parquet and their `.gz` and `.zst` one record is held at a time.

    Args:
        path: Name of the file; only its endings matter.
        stream: The file. A failure to read it on is one dropped record, "unreadable", after those before it.
        max_bytes: A record larger than this is dropped as "too_large".
    """
    suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
    try:
        records = _records(suffixes, stream, max_bytes)
        for record in records:
            yield _checked(record, max_bytes)
    except (OSError, EOFError, zlib.error, pa.ArrowException, ValueError, RecursionError):
        yield Record("", _TEXT, b"", "unreadable")


def _records(suffixes: list[str], stream: BinaryIO, max_bytes: int) -> Iterator[Record]:
    *before, last = ["", *suffixes] if suffixes else ["", ""]
    if last == ".gz":
        content = Inflated(stream)
        yield from _records(before, io.BufferedReader(content, _BLOCK_BYTES), max_bytes)
        if not content.is_whole:  # what could be read is kept, and the account says that something is missing
            yield Record("#rest", _TEXT, b"", "truncated")
    elif last == ".zst":
        unpacked: Any = pa.input_stream(stream, compression="zstd")
        yield from _records(before, io.BufferedReader(unpacked, _BLOCK_BYTES), max_bytes)
    elif last == ".jsonl":
        yield from _json_lines(stream, max_bytes)
    elif last == ".json":
        yield from _json(stream.read())
    elif last == ".parquet":
        yield from _parquet(stream)
    elif last == ".warc":
        yield from read_warc(stream, max_bytes)
    else:
        yield Record("", _MIME.get(last, _TEXT), stream.read(max_bytes + 1))


def _json_lines(stream: BinaryIO, max_bytes: int) -> Iterator[Record]:
    longest = _JSON_EXPANSION * max_bytes + _BLOCK_BYTES
    number = 0
    while line := stream.readline(longest):
        number += 1
        if len(line) == longest and not line.endswith(b"\n"):
            while (rest := stream.readline(_BLOCK_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield Record(f"#{number}", _TEXT, line[:1000], "too_large")
        elif line.strip():
            try:
                yield _from_value(f"#{number}", json.loads(line))
            except (ValueError, RecursionError):
                yield Record(f"#{number}", _TEXT, line[:1000], "unreadable")


def _json(raw: bytes) -> Iterator[Record]:
    value = json.loads(raw)
    for number, item in enumerate(value if isinstance(value, list) else [value], start=1):
        yield _from_value(f"#{number}", item)


def _parquet(stream: BinaryIO) -> Iterator[Record]:
    file = pq.ParquetFile(stream if stream.seekable() else io.BytesIO(stream.read()))
    columns = [name for name in _TEXT_FIELDS if name in file.schema_arrow.names]
    if not columns:
        yield from (Record(f"#{number}", _TEXT, b"", "no_text") for number in range(1, file.metadata.num_rows + 1))
        return
    number = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
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


def _checked(record: Record, max_bytes: int) -> Record:
    if record.reason:
        return record
    if not record.raw.strip():
        return Record(record.anchor, record.mime, b"", "empty")
    if len(record.raw) > max_bytes:
        return Record(record.anchor, record.mime, record.raw[:1000], "too_large")
    return record
