"""Kinds of files are told by what they hold; what is no document is refused by name and never taken for text."""

import bz2
import gzip
import io
import json
import lzma
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qwenops.data.collect.config import CollectConfig, FolderSource
from qwenops.data.collect.pages import read_source
from qwenops.data.collect.readers import read_records
from qwenops.data.collect.run import run

_LINES = b"".join(json.dumps({"text": f"line {n}"}).encode() + b"\n" for n in range(3))
_TURNS = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]


def _zst(raw):
    stream = pa.BufferOutputStream()
    with pa.CompressedOutputStream(stream, "zstd") as compressed:
        compressed.write(raw)
    return stream.getvalue().to_pybytes()


def _parquet(**columns):
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def _read(name, raw):
    return list(read_records(name, io.BytesIO(raw), 1_000_000))


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.jsonl", bytes), ("a.ndjson", bytes), ("a.json", bytes), ("a.txt", bytes), ("rows", bytes),
        ("a.json.gz", gzip.compress), ("a.ndjson.gz", gzip.compress), ("a.jsonl.zst", _zst),
        ("a.jsonl.bz2", bz2.compress), ("a.jsonl.xz", lzma.compress), ("a.jsonl", gzip.compress), ("rows", _zst),
        ("a.jsonl.gz", bytes), ("a.jsonl.gz", lambda raw: gzip.compress(gzip.compress(raw, mtime=0))),
    ],
)  # fmt: skip
def test_rows_are_read_whatever_the_file_is_called_and_however_it_is_packed(name, pack):
    assert [record.raw for record in _read(name, pack(_LINES))] == [b"line 0", b"line 1", b"line 2"]


@pytest.mark.parametrize(
    ("name", "raw", "reason"),
    [
        ("a.pdf", b"%PDF-1.4\n1 0 obj", "unsupported_pdf"),
        ("notes", b"%PDF-1.7\n", "unsupported_pdf"),
        ("a.txt.gz", gzip.compress(b"%PDF-1.7\n", mtime=0), "unsupported_pdf"),
        ("a.csv", b"text,label\nGood words,1\n", "unsupported_csv"),
        ("a.tsv", b"x\ty\n", "unsupported_csv"),
        ("table.txt", "".join(f"{n};name {n};{n * n};true\n" for n in range(12)).encode(), "unsupported_csv"),
        ("a.docx", b"PK\x03\x04\x14\x00", "unsupported_zip"),
        ("a.txt", b"\x89PNG\r\n\x1a\n\x00\x00", "unsupported_png"),
        ("a.xml", b"<?xml version='1.0'?><mediawiki/>", "unsupported_xml"),
        ("a.jsonl", json.dumps({"messages": _TURNS}).encode(), "unsupported_chat"),
        ("a.json", json.dumps([{"conversations": [{"from": "human", "value": "x"}]}]).encode(), "unsupported_chat"),
        ("a.txt", json.dumps(_TURNS[0]).encode() + b"\n", "unsupported_chat"),
        ("a.jsonl", json.dumps(_TURNS).encode(), "unsupported_chat"),
        ("a.jsonl", b'{"instruction": "Add.", "input": "", "output": "2"}', "unsupported_chat"),
        ("a.parquet", _parquet(messages=[_TURNS]), "unsupported_chat"),
        ("a.jsonl", b'{"title": "no text"}', "no_text"),
        ("notes.ipynb", b'{\n "cells": [{"cell_type": "markdown"}],\n "nbformat": 4\n}\n', "no_text"),
        ("map.geojson", b'[\n {\n  "type": "Feature"\n }\n]\n', "no_text"),
    ],
)
def test_what_is_no_document_is_refused_by_name(name, raw, reason):
    assert [(record.reason, record.raw) for record in _read(name, raw)] == [(reason, b"")]


def test_packed_file_that_nobody_reads_to_its_end_is_one_loss_and_not_two():
    noise = os.urandom(400_000)
    assert [record.reason for record in _read("a.pdf.gz", gzip.compress(b"%PDF-1.7\n" + noise, mtime=0))] == [
        "unsupported_pdf"
    ]
    text = gzip.compress(noise.hex().encode())
    assert [record.reason for record in read_records("a.txt.gz", io.BytesIO(text), 1000)] == ["too_large"]
    cut = read_records("a.txt.gz", io.BytesIO(text[:300_000]), 1_000_000)
    assert [record.reason for record in cut] == ["", "truncated"]


@pytest.mark.parametrize(
    ("name", "raw", "mime"),
    [
        ("page", b"\xef\xbb\xbf\n<!DOCTYPE html><html><body>x</body></html>", "text/html"),
        ("page.txt", b"<html><body>x</body></html>", "text/html"),
        ("page.php", b"<html><body>x</body></html>", "text/html"),
        ("code.php", b"<?php echo '<html>'; ?>", "text/x-php"),
        ("code.js", b'{"a": 1}\n', "text/javascript"),
        ("poem.txt", b"MZ and BM, says he,\nand then, and there\n" * 20, "text/plain"),
        ("a.md", b"# Title\n", "text/markdown"),
        ("said.txt", b'["Quiet", she said, "and then?"] {"a"}\n', "text/plain"),
        ("utf16.txt", "Grüße an alle".encode("utf-16"), "text/plain"),
    ],
)
def test_text_keeps_its_kind(name, raw, mime):
    ((record),) = _read(name, raw)
    assert (record.mime, record.reason, record.raw) == (mime, "", raw)


def test_row_brings_its_own_address_id_language_date_and_licence(tmp_path):
    own = {
        "url": "http://a.test/1",
        "id": 17,
        "language": "de-DE",
        "date": "2026-01-02T03:04:05Z",
        "licence": "CC0-1.0",
    }
    rows = [{"text": "eins", **own}, {"text": "zwei", "metadata": own}, {"text": "drei"}, {"text": "vier", **own}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = FolderSource(name="own", path=str(tmp_path), license="MIT")
    pages = list(read_source(source, CollectConfig(sources=(source,)), tmp_path))
    facts = [(page.url, page.record_id, page.lang_hint, page.fetched_at, page.license) for page in pages]
    assert facts[0] == facts[1] == facts[3] == ("http://a.test/1", "17", "de", "2026-01-02", "CC0-1.0")
    assert facts[2][:2] == ("folder://own/a.jsonl#3", "") and facts[2][4] == "MIT"
    assert not any(page.reason for page in pages) and len({page.id for page in pages}) == 4


def test_files_whose_names_are_not_unicode_are_read_and_foreign_files_are_warned_of(tmp_path, make_stage):
    folder = tmp_path / "own"
    folder.mkdir()
    for number, name in enumerate((b"caf\xe9.txt", b"caf\xe8.txt", b"b.pdf")):
        with open(os.fsencode(folder) + b"/" + name, "wb") as stream:
            stream.write(b"%PDF-1.4" if number == 2 else b"some words %d" % number)
    stage = make_stage("collect")
    run(CollectConfig(sources=(FolderSource(name="own", path=str(folder)),)), stage=stage)
    assert stage.counts == {"read": 3, "kept": 2, "dropped": {"unsupported_pdf": 1}}
    assert any("1 pdf" in sentence for sentence in stage.warnings)
