import gzip
import hashlib
import http.server
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.platform.servers import serve

from qwenops.contracts.document import check_pages, part_paths, read_funnel
from qwenops.data.collect.archives import read_members
from qwenops.data.collect.config import (
    CollectConfig,
    DebianSource,
    FolderSource,
    NpmSource,
    PageRule,
    PypiSource,
    PythonSource,
)
from qwenops.data.collect.downloads import debian_mirror, download, fetch
from qwenops.data.collect.pages import read_source
from qwenops.data.collect.readers import read_records
from qwenops.data.collect.run import run
from qwenops.errors import ContractError, PlatformError, StageError

_PAGE = b"<html><body><p>A page with some words.</p></body></html>"


def _folder(path: Path, **rules) -> CollectConfig:
    source = FolderSource(name="own", path=str(path), license="CC0-1.0", **rules)
    return CollectConfig(sources=(source,), max_page_bytes=1_000_000)


def _write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, raw in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    return folder


def _pages(out: Path) -> list[dict]:
    return pa.concat_tables(pq.read_table(path) for path in part_paths(out, "pages")).to_pylist()


def test_collect_folder_of_every_kind_gives_one_page_per_record(tmp_path, make_stage):
    lines = b"\n".join(json.dumps({"text": f"line {n}"}).encode() for n in range(3))
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["first row", "second row"]}), table)
    body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + _PAGE
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    files = {
        "a.html": _PAGE,
        "b/c.txt": b"plain text",
        "d.jsonl.gz": gzip.compress(lines),
        "e.parquet": table.getvalue(),
        "f.warc.gz": gzip.compress(head.encode() + body + b"\r\n\r\n"),
        "g.json": b'["one", "two"]',
        "h.py": b"x = 1\n",
    }
    stage = make_stage("collect")
    run(_folder(_write(tmp_path / "own", files)), stage=stage)
    rows = _pages(stage.out)
    assert len(rows) == 1 + 1 + 3 + 2 + 1 + 2 + 1
    assert {row["url"] for row in rows if row["url"].startswith("http://")} == {"http://a.example/"}
    assert stage.counts == {"read": 11, "kept": 11, "dropped": {}}
    for path in part_paths(stage.out, "pages"):
        check_pages(pq.read_table(path), path.name)


def test_collect_bad_files_are_dropped_with_a_reason_and_counted(tmp_path, make_stage):
    files = {
        "good.txt": b"good text",
        "empty.txt": b"  \n",
        "broken.jsonl.gz": b"\x1f\x8bnot gzip",
        "broken.parquet": b"PAR1",
        "half.jsonl": b'{"text": "fine"}\n{"text": \n{"other": 1}\n',
        "latin.txt": b"caf\xe9 \xff\xfe",
        "deep.json": b"[" * 100_000,
    }
    folder = _write(tmp_path / "own", files)
    (folder / "line.txt").write_bytes(b"x" * 50_000_000)
    stage = make_stage("collect")
    run(_folder(folder), stage=stage)
    assert stage.counts["dropped"] == {"empty": 1, "no_text": 1, "too_large": 1, "unreadable": 4}
    assert {row["raw"] for row in _pages(stage.out)} == {b"good text", b"fine", b"caf\xe9 \xff\xfe"}
    assert read_funnel(stage.out).read == 10
    sample = [json.loads(line) for line in (stage.out / "dropped_sample.jsonl").read_text().splitlines()]
    assert len(sample) == 7 and all(len(row["text"]) <= 300 for row in sample)


def test_collect_two_records_with_one_address_keeps_the_first(tmp_path, make_stage):
    record = b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/\r\nContent-Length: 59\r\n\r\n"
    body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>words</p>   "
    assert len(body) == 59
    stage = make_stage("collect")
    run(_folder(_write(tmp_path / "own", {"a.warc": (record + body + b"\r\n\r\n") * 2})), stage=stage)
    assert stage.counts["dropped"] == {"repeated_address": 1}


def test_collect_unreachable_source_is_skipped_and_recorded(tmp_path, make_stage):
    _write(tmp_path / "own", {"a.txt": b"some text"})
    absent = FolderSource(name="absent", path=str(tmp_path / "nowhere"))
    config = CollectConfig(sources=(absent, FolderSource(name="own", path=str(tmp_path / "own"))))
    stage = make_stage("collect")
    run(config, stage=stage)
    assert stage.metrics["sources.missing"] == 1
    assert any("absent" in sentence for sentence in stage.warnings)
    record = {row["source"]: row["error"] for row in json.loads((stage.out / "sources.json").read_text())}
    assert record["absent"] and not record["own"]


def test_collect_no_source_at_all_is_an_error_that_names_them(tmp_path, make_stage):
    with pytest.raises(StageError, match="no source could be reached") as caught:
        run(_folder(tmp_path / "nowhere"), stage=make_stage("collect"))
    assert "own" in caught.value.found


def test_collect_empty_folder_is_an_error_that_says_so(tmp_path, make_stage):
    (tmp_path / "own").mkdir()
    with pytest.raises(ContractError, match="kept no document"):
        run(_folder(tmp_path / "own"), stage=make_stage("collect"))


def test_collect_source_without_a_usable_page_is_refused_by_the_gate(tmp_path, make_stage):
    _write(tmp_path / "own", {"a.txt": b"some text"})
    _write(tmp_path / "blank", {"a.txt": b" "})
    sources = tuple(FolderSource(name=name, path=str(tmp_path / name), license="CC0-1.0") for name in ("own", "blank"))
    with pytest.raises(ContractError, match="gate pages failed"):
        run(CollectConfig(sources=sources), stage=make_stage("collect"))


def test_collect_cap_takes_the_same_sample_whatever_the_order_of_files(tmp_path):
    _write(tmp_path / "own", {f"{n:03}.txt": b"x" * 100 for n in range(50)})
    config = _folder(tmp_path / "own", rules=(PageRule(pattern="*", cap_bytes=1000),))
    first = [page.url for page in read_source(config.sources[0], config, tmp_path)]
    assert len(first) == 10
    assert first == [page.url for page in read_source(config.sources[0], config, tmp_path)]
    assert first != sorted(first)


def test_collect_takes_all_of_a_source_without_a_cap(tmp_path):
    _write(tmp_path / "own", {f"{n:03}.txt": b"x" * 100 for n in range(50)})
    config = _folder(tmp_path / "own")
    assert config.sources[0].rules[0].cap_bytes is None
    assert len(list(read_source(config.sources[0], config, tmp_path))) == 50


def test_collect_rules_give_domain_and_language_by_pattern(tmp_path):
    _write(tmp_path / "own", {"zh/a.txt": b"text", "src/b.py": b"text", "other.bin": b"text"})
    rules = (PageRule(pattern="zh/*", domain="prose", lang="zh"), PageRule(pattern="*.py", domain="code"))
    config = _folder(tmp_path / "own", rules=rules)
    pages = {page.url[-1]: page for page in read_source(config.sources[0], config, tmp_path)}
    assert len(pages) == 2
    assert (pages["t"].domain, pages["t"].lang_hint, pages["y"].domain) == ("prose", "zh", "code")


@pytest.mark.parametrize("content", ["code", "docstrings"])
def test_collect_environment_reads_the_standard_library(tmp_path, content):
    source = PythonSource(name="python", packages=("json", "email"), content=content)
    pages = [p for p in read_source(source, CollectConfig(), tmp_path) if not p.reason]
    assert pages and all(page.raw and page.license for page in pages)
    assert any(b"JSON" in page.raw for page in pages)
    assert any(b"\nimport " in page.raw for page in pages) == (content == "code")


def test_collect_environment_without_the_package_is_unreachable(tmp_path):
    source = PythonSource(name="python", packages=("no_such_package_here",))
    with pytest.raises(PlatformError, match="nothing of it is installed"):
        list(read_source(source, CollectConfig(), tmp_path))


_LINES = b"".join(json.dumps({"text": f"line {n} " + "x" * 50}).encode() + b"\n" for n in range(2000))


def test_records_of_a_truncated_gzip_are_kept_up_to_the_cut_and_the_rest_is_accounted_for():
    cut = gzip.compress(_LINES)[:-2000]
    records = list(read_records("a.jsonl.gz", io.BytesIO(cut), 1000))
    assert records[0].raw.startswith(b"line 0 ")
    assert 100 < sum(not record.reason for record in records) < 2000
    assert records[-1].reason == "truncated"


def test_records_of_a_gzip_with_several_members_are_all_read():
    raw = gzip.compress(b'{"text": "one"}\n') + gzip.compress(b'{"text": "two"}\n')
    assert [record.raw for record in read_records("a.jsonl.gz", io.BytesIO(raw), 1000)] == [b"one", b"two"]


def test_records_of_zstandard_are_read():
    stream = pa.BufferOutputStream()
    with pa.CompressedOutputStream(stream, "zstd") as compressed:
        compressed.write(_LINES)
    records = list(read_records("a.jsonl.zst", io.BytesIO(stream.getvalue().to_pybytes()), 1000))
    assert len(records) == 2000 and not any(record.reason for record in records)


def test_truncated_warc_record_is_accounted_for():
    body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>text</p>"
    whole = b"".join(
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a/{n}\r\n".encode()
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body + b"\r\n\r\n"
        for n in range(3)
    )  # fmt: skip
    records = list(read_records("a.warc", io.BytesIO(whole[:-20]), 1000))
    assert [(record.anchor, record.reason) for record in records] == [
        ("http://a/0", ""), ("http://a/1", ""), ("http://a/2", "truncated")
    ]  # fmt: skip


def test_records_larger_than_the_limit_are_cut_and_dropped():
    (record,) = read_records("a.txt", io.BytesIO(b"y" * 2000), 1999)
    assert record.reason == "too_large" and len(record.raw) == 1000
    (record,) = read_records("a.txt", io.BytesIO(b"y" * 1999), 1999)
    assert not record.reason


def _deb(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, raw in files.items():
            info = tarfile.TarInfo("./" + name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": data.getvalue()}
    blocks = (
        f"{name:<16}{0:<12}{0:<6}{0:<6}{644:<8}{len(raw):<10}`\n".encode() + raw + b"\n" * (len(raw) % 2)
        for name, raw in members.items()
    )
    return b"!<arch>\n" + b"".join(blocks)


def _debian(raw: bytes, sha256: str = "") -> DebianSource:
    return DebianSource(
        name="manual",
        pool_path="pool/main/m/manual_1_all.deb",
        sha256=sha256 or hashlib.sha256(raw).hexdigest(),
        license="MIT",
        rules=(PageRule(pattern="usr/*.html", lang="de"),),
    )


class _Mirror(http.server.BaseHTTPRequestHandler):
    """Serves one file, with byte ranges, and remembers what was asked for."""

    raw = b""
    ranges: list[str]

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-") or 0)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(self.raw) - start))
        self.end_headers()
        self.wfile.write(self.raw[start:])

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def mirror() -> Iterator[tuple[str, type[_Mirror]]]:
    handler = type("Handler", (_Mirror,), {"raw": _deb({"usr/share/a.html": _PAGE, "etc/b.html": b"no"}), "ranges": []})
    with serve(handler) as address:
        yield address, handler


def test_collect_debian_package_is_downloaded_once_and_read(tmp_path, mirror):
    address, handler = mirror
    config = CollectConfig(sources=(_debian(handler.raw),), debian_mirror=address)
    for _ in range(2):
        pages = list(read_source(config.sources[0], config, tmp_path))
        assert [(page.raw, page.lang_hint, page.mime) for page in pages] == [(_PAGE, "de", "text/html")]
    assert handler.ranges == [""]


def test_collect_cut_download_is_resumed(tmp_path, mirror):
    address, handler = mirror
    source = _debian(handler.raw)
    part = tmp_path / source.sha256[:16] / "manual_1_all.deb.part"
    part.parent.mkdir()
    part.write_bytes(handler.raw[:100])
    archive = fetch(source, CollectConfig(debian_mirror=address), tmp_path)
    assert archive.read_bytes() == handler.raw
    assert handler.ranges == ["bytes=100-"] and not part.exists()


def test_collect_wrong_checksum_is_refused_and_not_kept(tmp_path, mirror):
    address, handler = mirror
    source = _debian(handler.raw, sha256="0" * 64)
    with pytest.raises(PlatformError, match="another checksum"):
        fetch(source, CollectConfig(debian_mirror=address), tmp_path)
    assert not list(tmp_path.rglob("*.deb*"))


def test_collect_damaged_archive_is_a_platform_error_with_the_way_out(tmp_path):
    for name in ("a.deb", "a.whl", "a.tgz"):
        (tmp_path / name).write_bytes(b"!<arch>\nnothing of use")
        with pytest.raises(PlatformError, match="remove"):
            list(read_members(tmp_path / name, lambda _: True))


def test_download_without_a_server_names_the_address(tmp_path):
    with pytest.raises(PlatformError, match=r"127\.0\.0\.1:9/nothing"):
        download("http://127.0.0.1:9/nothing", tmp_path / "nothing", timeout_seconds=2)


@pytest.mark.parametrize(
    "source",
    [
        PypiSource(name="a", package="qwenops-no-such", version="0", sha256="0" * 64, license="MIT",
                   rules=(PageRule(pattern="*"),)),
        NpmSource(name="b", package="./no-such-folder", version="0", sha256="0" * 64, license="MIT",
                  rules=(PageRule(pattern="*"),)),
    ],
    ids=["pip", "npm"],
)  # fmt: skip
def test_collect_package_client_that_fails_is_a_platform_error(tmp_path, monkeypatch, source):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("npm_config_offline", "true")
    with pytest.raises(PlatformError):
        fetch(source, CollectConfig(timeout_seconds=2.0), tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "deb [arch=amd64] http://mirror.example/debian bookworm main\n",
        "# a note\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n",
    ],
)
def test_debian_mirror_is_read_from_either_form_of_apt_sources(tmp_path, text):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(text)
    assert debian_mirror(tmp_path) == "http://mirror.example/debian"


def test_debian_mirror_without_apt_says_what_to_set(tmp_path):
    with pytest.raises(PlatformError, match=r"collect\.debian_mirror"):
        debian_mirror(tmp_path)
