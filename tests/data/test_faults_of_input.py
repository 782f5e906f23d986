"""Bad input through collect and ingest: huge records, bombs, NUL bytes, wrong labels, sources that go away."""

import gzip
import http.server
import io
import json
import shutil
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.platform.servers import serve

from qwenops.contracts.document import Funnel, part_paths, read_documents
from qwenops.data.collect.config import CollectConfig, DebianSource, FolderSource, PageRule
from qwenops.data.collect.downloads import fetch
from qwenops.data.collect.pages import read_source
from qwenops.data.collect.readers import read_records
from qwenops.data.collect.run import PartWriter, run
from qwenops.data.ingest.config import IngestConfig
from qwenops.data.ingest.run import run as ingest
from qwenops.errors import PlatformError

_LARGE = 100_000_000
_LIMIT = 1_000_000
_ENGLISH = "The harbour was quiet that morning and the boats lay still in the grey light of the early day. "


def _config(*paths, **changes):
    sources = tuple(FolderSource(name=f"s{n}", path=str(path), license="MIT") for n, path in enumerate(paths))
    return CollectConfig(sources=sources, **changes)


class _Endless(io.RawIOBase):
    """`head`, then letters up to a size, then `tail`: a large file that is never in memory."""

    def __init__(self, head: bytes, size: int, tail: bytes) -> None:
        self._pieces = [head, size, tail]

    def readable(self):
        return True

    def readinto(self, buffer):
        while self._pieces:
            piece = self._pieces[0]
            count = min(len(buffer), piece if isinstance(piece, int) else len(piece))
            if count:
                buffer[:count] = b"x" * count if isinstance(piece, int) else piece[:count]
                self._pieces[0] = piece - count if isinstance(piece, int) else piece[count:]
                return count
            self._pieces.pop(0)
        return 0


@pytest.mark.parametrize(
    ("name", "head", "tail", "others"),
    [
        ("a.txt", b"", b"", 0),
        ("a.html", b"<html><body>", b"</body></html>", 0),
        ("a.jsonl", b'{"text": "one"}\n{"text": "', b'"}\n{"text": "two"}\n', 2),
        (
            "a.warc",
            b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a/\r\nContent-Length: 100000044\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n",
            b"\r\n\r\nWARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://b/\r\nContent-Length: 53\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\nshort one",
            1,
        ),
    ],
)
def test_document_of_100_mb_is_dropped_without_being_held(name, head, tail, others):
    stream = io.BufferedReader(_Endless(head, _LARGE, tail), 1 << 20)
    tracemalloc.start()
    try:
        records = list(read_records(name, stream, _LIMIT))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [record.reason for record in records].count("too_large") == 1
    assert [record.reason for record in records].count("") == others and len(records) == others + 1
    assert peak < 25_000_000


def test_compressed_bomb_is_dropped_without_being_held(tmp_path):
    with gzip.open(tmp_path / "bomb.txt.gz", "wb", compresslevel=1) as stream:
        for _ in range(200):
            stream.write(b"\n " + b"y" * 1_000_000)
    tracemalloc.start()
    try:
        with (tmp_path / "bomb.txt.gz").open("rb") as stream:
            records = list(read_records("bomb.txt.gz", stream, _LIMIT))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert records[0].reason == "too_large" and peak < 25_000_000


def test_nul_bytes_and_wrong_charset_labels_are_accounted_for(tmp_path, make_stage):
    (tmp_path / "in").mkdir()
    german = "Die Straße führt über die Brücke zum schönen Städtchen am Fluss. " * 8
    head = '<html><head><meta charset="{}"></head><body><p>{}</p></body></html>'
    files = {
        "nul.txt": (_ENGLISH * 5 + "\0 between \0 words. " + _ENGLISH * 5).encode(),
        "only-nul.txt": b"\0" * 5000,
        "says-utf8.html": head.format("utf-8", german).encode("latin-1"),
        "says-latin.html": head.format("iso-8859-1", german).encode(),
        "no-such.html": head.format("x-no-such", german).encode(),
    }
    for name, raw in files.items():
        (tmp_path / "in" / name).write_bytes(raw)
    pages, documents = make_stage("collect"), make_stage("ingest")
    run(_config(tmp_path / "in"), stage=pages)
    ingest(IngestConfig(min_language_score=0.0), pages=pages.out, stage=documents)
    counts = documents.counts
    assert counts["read"] == pages.counts["kept"] == len(files)
    assert counts["kept"] + sum(counts["dropped"].values()) == counts["read"]
    texts = {row["url"].rsplit("/", 1)[1]: row["text"] for row in read_documents(documents.out).to_pylist()}
    assert "\0" not in "".join(texts.values()) and "between" in texts["nul.txt"] and "only-nul.txt" not in texts
    assert all("Straße führt über" in texts[name] for name in texts if name.endswith(".html"))
    assert len(texts) == 4


def test_folder_that_vanishes_half_way_is_accounted_for_and_warned_about(tmp_path, make_stage):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(20):
            (tmp_path / name / f"{number}.txt").write_text(f"text {name} {number}")
    config = _config(tmp_path / "a", tmp_path / "b")
    pages = read_source(config.sources[0], config, tmp_path)
    taken = [next(pages) for _ in range(5)]
    shutil.rmtree(tmp_path / "a")
    taken += list(pages)
    assert [page.reason for page in taken] == [""] * 5 + ["unreadable"] * 15
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a" / "here.txt").write_text("text")
    (tmp_path / "a" / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "row"}\n' * 50_000)[:-40])
    stage = make_stage("collect")
    run(config, stage=stage)
    assert stage.counts["dropped"]["truncated"] == 1
    assert any("source s0 was not read whole" in sentence for sentence in stage.warnings)


class _Cutting(http.server.BaseHTTPRequestHandler):
    """Promises the whole file and hangs up after a part of it."""

    raw = b""
    sent = 0

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.raw)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.raw[: self.sent])

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def cutting():
    handler = type("Handler", (_Cutting,), {})
    with serve(handler) as address:
        yield address, handler


def test_web_source_that_hangs_up_keeps_what_came_and_accounts_for_the_rest(tmp_path, cutting, make_stage):
    address, handler = cutting
    handler.raw = b"".join(json.dumps({"text": f"line {n} " + "x" * 100}).encode() + b"\n" for n in range(100_000))
    handler.sent = len(handler.raw) // 2
    stage = make_stage("collect")
    run(_config(f"{address}/rows.jsonl"), stage=stage)
    assert 0 < stage.counts["kept"] <= 50_000
    assert stage.counts["dropped"]["unreadable"] >= 1
    assert any("was not read whole" in sentence for sentence in stage.warnings)


def test_download_that_is_cut_is_a_platform_error_and_is_resumed_next_time(tmp_path, cutting):
    address, handler = cutting
    handler.raw, handler.sent = b"d" * 300_000, 200_000
    source = DebianSource(
        name="d", pool_path="d.deb", sha256="0" * 64, license="MIT", rules=(PageRule(pattern="*"),)
    )  # fmt: skip
    with pytest.raises(PlatformError, match="cannot download") as caught:
        fetch(source, CollectConfig(debian_mirror=address), tmp_path)
    assert "200000" in caught.value.found
    assert [path.stat().st_size for path in tmp_path.rglob("*.part")] == [200_000]


_NAMES = st.sampled_from([".txt", ".jsonl", ".json", ".html", ".parquet", ".warc", ".jsonl.gz", ".txt.zst", ".warc.gz"])
_VALUES = st.one_of(
    st.none(), st.integers(), st.text(max_size=20), st.dictionaries(st.just("text"), st.text(max_size=9))
)
_ROWS = st.lists(_VALUES, max_size=6).map(lambda rows: b"\n".join(json.dumps(row).encode() for row in rows))
_CONTENTS = st.one_of(st.binary(max_size=200), _ROWS, _ROWS.map(gzip.compress))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.dictionaries(st.integers(0, 9), st.tuples(_NAMES, _CONTENTS), min_size=1, max_size=6))
def test_any_bytes_under_any_name_give_records_or_reasons(files):
    for name, raw in files.values():
        records = list(read_records(f"a{name}", io.BytesIO(raw), 150))
        assert all(record.reason or 0 < len(record.raw) <= 150 for record in records)
        if not name.endswith(".warc"):
            assert records or not raw.strip() or any(part in name for part in ("jsonl", "parquet", "warc", "json"))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.one_of(st.text(max_size=30), st.none(), st.integers()), min_size=1, max_size=30),
    part_bytes=st.integers(1, 200),
)
def test_collect_accounts_for_every_row_of_a_file_whatever_the_parts(rows, part_bytes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    lines = "\n".join(json.dumps({"text": row}) for row in rows)
    (folder / "in.jsonl").write_text(lines + '\n{"text": "always there"}\n')
    found = {}
    for size in (part_bytes, 1_000_000):
        config = _config(folder / "in.jsonl", part_bytes=size)
        writer = PartWriter(folder / str(size) / "pages", size, Funnel("collect"))
        writer.add(read_source(config.sources[0], config, folder))
        writer.close()
        funnel = writer.funnel
        assert funnel.read == len(rows) + 1 == funnel.kept + sum(funnel.dropped.values())
        tables = [pq.read_table(path) for path in part_paths(folder / str(size), "pages")]
        found[size] = pa.concat_tables(tables).to_pylist(), funnel.dropped, writer.sample.to_pylist()
    assert found[part_bytes] == found[1_000_000]
