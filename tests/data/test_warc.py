"""WARC files as crawlers write and disks damage them: one bad record costs one record, and pages are read as sent."""

import gzip
import io
import json
import zlib
from pathlib import Path

import brotli
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from qwenops.data.collect.readers import read_records

SHARED = Path(__file__).parents[2].parent / "shared"
_PAGE = b"<html><body><p>The lamp is lit at dusk, page %d.</p></body></html>"
_TYPE = b"Content-Type: text/html\r\n"


def http(body, *heads, status=b"200 OK", nl=b"\r\n"):
    return nl.join([b"HTTP/1.1 " + status, b"Content-Type: text/html", *heads, b"", body])


def record(number, block=None, length=None, kind=b"response", heads=b""):
    block = http(_PAGE % number) if block is None else block
    size = b"%d" % len(block) if length is None else length
    return (
        b"WARC/1.0\r\nWARC-Type: " + kind + b"\r\nWARC-Target-URI: http://lamp.test/%d\r\n" % number
        + b"WARC-Date: 2026-02-03T00:00:00Z\r\n" + heads + b"Content-Length: " + size
        + b"\r\n\r\n" + block + b"\r\n\r\n"
    )  # fmt: skip


def read(raw, name="a.warc", most=1_000_000):
    return list(read_records(name, io.BytesIO(raw), most))


def _is_whole(member):
    try:
        return bool(gzip.decompress(member))
    except (OSError, EOFError, zlib.error):
        return False


def outcome(records):
    return [(int(found.anchor.rpartition("/")[2]), found.reason) for found in records]


def chunked(body, size=40):
    parts = [body[place : place + size] for place in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


_RAW = zlib.compressobj(wbits=-15)
_CODED = {
    "chunked": http(chunked(_PAGE % 1), b"Transfer-Encoding: chunked"),
    "chunked-gzip": http(chunked(gzip.compress(_PAGE % 1)), b"Transfer-Encoding: chunked", b"Content-Encoding: gzip"),
    "x-gzip": http(gzip.compress(_PAGE % 1), b"content-encoding: X-GZIP"),
    "deflate": http(zlib.compress(_PAGE % 1), b"Content-Encoding: deflate"),
    "raw-deflate": http(_RAW.compress(_PAGE % 1) + _RAW.flush(), b"Content-Encoding: Deflate"),
    "brotli": http(brotli.compress(_PAGE % 1), b"Content-Encoding: br"),
    "twice": http(gzip.compress(zlib.compress(_PAGE % 1)), b"Content-Encoding: deflate, gzip"),
    "stored-plain": http(_PAGE % 1, b"Content-Encoding: gzip"),
    "stored-whole": http(_PAGE % 1, b"Transfer-Encoding: chunked"),
    "line-feeds": http(_PAGE % 1, nl=b"\n"),
    "http-2": http(_PAGE % 1).replace(b"HTTP/1.1 200 OK", b"HTTP/2 200"),
}


@pytest.mark.parametrize("coding", _CODED)
def test_page_is_read_as_its_server_meant_it(coding):
    records = read(record(0) + record(1, _CODED[coding]) + record(2))
    assert [found.raw for found in records] == [_PAGE % number for number in range(3)]
    assert {(found.mime, found.date, found.reason) for found in records} == {("text/html", "2026-02-03", "")}


@pytest.mark.parametrize("length", [b"x9", b"-1", b"", b"3", b"400", b"99999999999999"])
@pytest.mark.parametrize("packed", [False, True])
def test_record_of_wrong_length_costs_itself(length, packed):
    rows = [record(number, length=length if number == 1 else None) for number in range(4)]
    raw = b"".join(gzip.compress(row) if packed else row for row in rows)
    found = read(raw, "a.warc.gz" if packed else "a.warc")
    assert outcome(found) == [(0, ""), (1, "unreadable"), (2, ""), (3, "")]


@given(st.integers(0, 4), st.integers(10, 10_000), st.integers(0, 7))
@example(4, 365, 1)  # the last member then wants more bytes than there are
def test_damaged_member_costs_one_record(number, place, bit):
    members = [gzip.compress(record(n), mtime=0) for n in range(5)]
    damaged = bytearray(members[number])
    damaged[10 + place % (len(damaged) - 10)] ^= 1 << bit
    assume(not _is_whole(bytes(damaged)))  # the last byte of a member's content has bits that mean nothing
    members[number] = bytes(damaged)
    found = read(b"".join(members), "a.warc.gz")
    assert [page.raw for page in found if not page.reason] == [_PAGE % n for n in range(5) if n != number]
    # Damage by which the last member does not end looks as if the file had been cut.
    said = ["unreadable", "truncated"] if number == 4 else ["unreadable"]
    assert [page.reason in said for page in found if page.reason] == [True]


def test_record_that_holds_records_is_one_page():
    inner = http(b"A file of records:\r\n\r\n" + record(7) + record(8)).replace(b"text/html", b"text/plain")
    assert outcome(read(record(0, inner) + record(1))) == [(0, ""), (1, "")]


def test_only_pages_that_were_answered_are_kept():
    rows = [
        record(0),
        record(1, http(b"gone", status=b"404 Not Found")),
        record(2, http(b"moved", status=b"301 Moved")),
        record(3, http(b"%PDF-1.5 ...")),
        record(4, http(b"\x89PNG").replace(b"text/html", b"image/png")),
        record(5, b"GET / HTTP/1.1\r\n\r\n", kind=b"request"),
        record(6, b"software: lamp\r\n", kind=b"warcinfo"),
        record(7, _PAGE % 7, kind=b"resource", heads=_TYPE),
        record(8, b"Plain text of a page.", kind=b"conversion", heads=_TYPE.replace(b"html", b"plain")),
        record(9, http(b"y" * 300_000)),
        record(10),
    ]
    found = read(b"".join(rows), most=1000)
    assert outcome(found) == [
        (0, ""), (1, "http_status"), (2, "http_status"), (3, "unsupported_pdf"), (4, "not_text"), (7, ""), (8, ""),
        (9, "too_large"), (10, ""),
    ]  # fmt: skip
    assert [page.mime for page in found if page.anchor[-2:] in ("/7", "/8")] == ["text/html", "text/plain"]


def test_address_is_without_its_brackets_and_a_file_of_no_record_is_counted():
    (found,) = read(record(0).replace(b"http://lamp.test/0", b"<http://lamp.test/0>"))
    assert found.anchor == "http://lamp.test/0"
    assert [found.reason for found in read(b"no record at all\n")] == ["unreadable"]


def test_every_file_of_the_cases_gives_what_is_expected():
    folder = SHARED / "cases/data/warc"
    if not folder.exists():
        pytest.skip("the shared cases are not here")
    expected = json.loads((folder / "expected.json").read_text())
    found = {name: read((folder / name).read_bytes(), name) for name in expected}
    assert {
        name: {"kept": sum(not one.reason for one in records), "dropped": sum(bool(one.reason) for one in records)}
        for name, records in found.items()
    } == {name: {key: facts[key] for key in ("kept", "dropped")} for name, facts in expected.items()}
    pages = [one for records in found.values() for one in records if not one.reason]
    assert all(b"The keeper writes the hour" in one.raw and one.anchor.startswith("http://") for one in pages)
