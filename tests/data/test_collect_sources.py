"""Sources beyond this machine's folders: S3, a web server, a mirror of the Hub and its cache, source trees."""

import datetime
import gzip
import http.server
import io
import json
import os
import subprocess
import sys
from typing import ClassVar

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.platform.servers import KEYS, s3_server, serve

from qwenops.data.collect.config import CodeSource, CollectConfig, FolderSource, PageRule
from qwenops.data.collect.pages import read_source
from qwenops.data.collect.repositories import license_of
from qwenops.errors import PlatformError

_ROWS = [f"row {number}" for number in range(30)]
_LINES = "".join(json.dumps({"text": row}) + "\n" for row in _ROWS).encode()


def _read(source, cache):
    return list(read_source(source, CollectConfig(sources=(source,)), cache))


def _zst(raw: bytes) -> bytes:
    stream = pa.BufferOutputStream()
    with pa.CompressedOutputStream(stream, "zstd") as compressed:
        compressed.write(raw)
    return stream.getvalue().to_pybytes()


def _parquet() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": _ROWS, "other": range(30)}), stream)
    return stream.getvalue()


def test_bucket_is_read_as_a_folder_with_licence_and_the_stores_own_date(tmp_path, monkeypatch):
    with s3_server() as endpoint:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL_S3": endpoint}).items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="corpus")
        files = {
            "crawl/a.jsonl.zst": _zst(_LINES),
            "crawl/b.parquet": _parquet(),
            "crawl/c.jsonl.gz": gzip.compress(_LINES),
        }
        for name, raw in (files | {"other/d.txt": b"not asked for", "crawl/e.bin": b"no rule"}).items():
            client.put_object(Bucket="corpus", Key=name, Body=raw)
        rules = (PageRule(pattern="*.jsonl*"), PageRule(pattern="*.parquet", domain="prose", lang="en"))
        pages = _read(FolderSource(name="own", path="s3://corpus/crawl", license="CC-BY-4.0", rules=rules), tmp_path)
        assert [page.reason for page in pages] == [""] * 90
        assert {page.url.split("#")[0] for page in pages} == {f"folder://own/{name[6:]}" for name in files}
        assert {page.license for page in pages} == {"CC-BY-4.0"}
        assert {page.fetched_at for page in pages} == {datetime.datetime.now(datetime.UTC).date().isoformat()}
        assert sorted(page.raw.decode() for page in pages if page.domain == "prose") == sorted(_ROWS)
        one = _read(FolderSource(name="own", path="s3://corpus/crawl/b.parquet"), tmp_path)
        assert len(one) == 30
        for absent in ("s3://corpus/nothing-here", "s3://no-such-bucket/a"):
            with pytest.raises(PlatformError):
                _read(FolderSource(name="own", path=absent), tmp_path)


@pytest.mark.parametrize("address", ["nosuch://a/b", "http://127.0.0.1:9/rows.jsonl"])
def test_address_that_cannot_be_read_is_an_unreachable_source(tmp_path, address):
    with pytest.raises(PlatformError, match=r"no access to nosuch://|cannot list http://127\.0\.0\.1:9"):
        _read(FolderSource(name="own", path=address), tmp_path)


_CARD = b"---\nlicense: cc-by-sa-4.0\n---\n# A set\n"
_COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub as a client asks for to copy a data set."""

    files: ClassVar = {
        "README.md": _CARD,
        "data/train.parquet": _parquet(),
        "data/more.jsonl": _LINES,
        "big.bin": b"no",
    }

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/datasets/team/set/revision/"):
            siblings = [{"rfilename": name} for name in self.files]
            return self._send(json.dumps({"id": "team/set", "sha": _COMMIT, "siblings": siblings}).encode(), body)
        if path.startswith("/api/datasets/team/set/tree/"):
            rows = [
                {"type": "file", "path": name, "size": len(raw), "oid": f"{len(raw):040}"}
                for name, raw in self.files.items()
            ]
            return self._send(json.dumps(rows).encode(), body)
        name = path.removeprefix(f"/datasets/team/set/resolve/{_COMMIT}/")
        return self._send(self.files[name], body, etag=name) if name in self.files else self.send_error(404)

    def _send(self, raw: bytes, body: bool, etag: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.send_header("Content-Type", "application/json")
        if etag:
            self.send_header("ETag", f'"{etag.replace("/", "-")}"')
            self.send_header("X-Repo-Commit", _COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


_COPY = """
import json, sys
from pathlib import Path
from qwenops.data.collect.config import CollectConfig, HubSource
from qwenops.data.collect.pages import read_source
source = HubSource(name="set", dataset="team/set", revision=sys.argv[1])
pages = read_source(source, CollectConfig(sources=(source,)), Path(sys.argv[2]))
print(json.dumps([[p.url, p.license, p.fetched_at, p.raw.decode(), p.reason] for p in pages]))
"""


def test_data_set_is_copied_from_a_mirror_of_the_hub_once_and_read_from_the_cache(tmp_path):
    here = {"HF_HOME": str(tmp_path / "hub")}

    def copy(**changes):
        command = [sys.executable, "-c", _COPY, _COMMIT, str(tmp_path)]
        return subprocess.run(command, env=os.environ | here | changes, capture_output=True, text=True, check=False)

    with serve(_Hub) as here["HF_ENDPOINT"]:
        first = copy()
    assert first.returncode == 0, first.stderr
    rows = json.loads(first.stdout)
    assert len(rows) == 60 and {row[1] for row in rows} == {"cc-by-sa-4.0"} and not any(row[4] for row in rows)
    assert {row[0].split("#")[0] for row in rows} == {"hub://set/data/train.parquet", "hub://set/data/more.jsonl"}
    assert all(row[2] for row in rows)
    assert copy(HF_HUB_OFFLINE="1").stdout == first.stdout
    lacking = copy(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "empty"))
    assert lacking.returncode and "PlatformError: set: the Hub does not give it" in lacking.stderr


_MIT = """MIT License

Permission is hereby granted, free of charge ... The above copyright notice and this permission notice
"""


def test_source_trees_give_each_file_its_own_licence_and_leave_vendored_ones_out(tmp_path):
    files = {
        "one/LICENSE": _MIT,
        "one/a.py": "print(1)\n",
        "one/sub/b.rs": "fn main() {}\n",
        "one/sub/c.c": "/* SPDX-License-Identifier: GPL-2.0-only */\nint x;\n",
        "one/node_modules/d.js": "x\n",
        "one/.git/e.py": "x\n",
        "one/notes.txt": "no program\n",
        "two/f.go": "package two\n",
    }
    for name, text in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(text)
    pages = _read(CodeSource(name="trees", path=str(tmp_path / "in")), tmp_path)
    found = {page.url.removeprefix("code://trees/"): page for page in pages}
    licences = {name: page.license for name, page in found.items()}
    assert licences == {"one/a.py": "MIT", "one/sub/b.rs": "MIT", "one/sub/c.c": "GPL-2.0-only", "two/f.go": "unknown"}
    assert {page.domain for page in pages} == {"code"} and all(page.fetched_at for page in pages)
    assert found["one/sub/b.rs"].mime == "text/x-rust"
    kept = _read(CodeSource(name="trees", path=str(tmp_path / "in"), allowed=("MIT",)), tmp_path)
    assert sorted(page.reason for page in kept) == ["", "", "license", "license"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "                                 Apache License\n                           Version 2.0, January 2004",
            "Apache-2.0",
        ),
        ("GNU GENERAL PUBLIC LICENSE\n Version 3, 29 June 2007", "GPL-3.0"),
        ("Redistribution and use in source and\nbinary forms ... Neither the name of", "BSD-3-Clause"),
        ("Redistribution and use in source and binary forms, with", "BSD-2-Clause"),
        ("All rights reserved.", "unknown"),
    ],
)
def test_licence_files_are_recognised(tmp_path, text, name):
    (tmp_path / "LICENSE.txt").write_text(text)
    (tmp_path / "a.py").write_text("x = 1\n")
    assert license_of(tmp_path / "a.py", tmp_path) == name
