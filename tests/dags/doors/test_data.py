"""The door of data: a folder that others filled goes through `qwenops run`; all of it is kept or dropped by name."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.dags.conftest import qwenops
from tests.dags.doors.foreign_files import write_all
from warcio.archiveiterator import ArchiveIterator

SHARED = Path(__file__).parents[3].parent / "shared"


@pytest.fixture(scope="module")
def ingested(tmp_path_factory):
    """Record of a run over the foreign folder (and the shared files where they are), and what the folder must give."""
    folder, out = tmp_path_factory.mktemp("foreign"), tmp_path_factory.mktemp("runs") / "data"
    expected = write_all(folder)
    sources = [{"kind": "folder", "name": "own", "path": str(folder)}]
    # A source each, since files of the cases hold pages of the same addresses.
    sources += [{"kind": "folder", "name": path.name, "path": str(path)} for path in shared_crawls()]
    done = qwenops("run", "smoke", "--until", "ingest", "--out", out, "--set", f"collect.sources={json.dumps(sources)}")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads((out / "run.json").read_text())["stages"], expected


def shared_crawls():
    return sorted([*(SHARED / "cases/data/warc").glob("*.w*"), *(SHARED / "data/warc_samples").glob("*.warc.gz")])


def output(stages, name):
    return Path(stages[name]["outputs"]["output"]["path"])


def rows_of(stages, name, kind, *columns):
    parts = sorted((output(stages, name) / kind).glob("*.parquet"))
    return [row for part in parts for row in pq.read_table(part, columns=list(columns)).to_pylist()]


def dropped_of(stages, name):
    lines = (output(stages, name) / "dropped_sample.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    own = ("folder://own/", "http://plain.test", "http://packed.test", "http://texts.test")
    return {row["url"]: row["reason"] for row in rows if row["url"].startswith(own)}


def test_every_file_and_record_is_kept_or_dropped_by_name_with_its_reason(ingested):
    stages, expected = ingested
    pages = {row["url"] for row in rows_of(stages, "collect", "pages", "url", "source") if row["source"] == "own"}
    assert pages == expected.kept.keys() | expected.undecodable
    assert dropped_of(stages, "collect") == expected.dropped
    assert dropped_of(stages, "ingest") == dict.fromkeys(expected.undecodable, "undecodable")


def test_text_is_what_went_in_whatever_its_charset_and_container(ingested):
    stages, expected = ingested
    found = {row["url"]: row["text"] for row in rows_of(stages, "ingest", "documents", "url", "text", "source")}
    wrong = {url: found.get(url, "")[:80] for url, text in expected.kept.items() if text not in found.get(url, "")}
    assert wrong == {}
    exact = {url for url, text in expected.kept.items() if found[url] == text}
    # Of a page the title may stand above; its script and its menu are no text of it.
    assert {url for url in expected.kept if "/rows/" in url or url.endswith((".txt", ".md", "/last"))} <= exact
    assert not [url for url, text in found.items() if url in expected.kept and ("var x" in text or "home" in text)]


def test_counts_add_up_and_what_was_not_read_is_warned_of(ingested):
    stages, expected = ingested
    for name in ("collect", "ingest"):
        counts = stages[name]["counts"]
        assert counts["read"] == counts["kept"] + sum(counts["dropped"].values())
    assert stages["ingest"]["counts"]["read"] == stages["collect"]["counts"]["kept"]
    assert stages["collect"]["metrics"]["documents.own"] == len(expected.kept) + len(expected.undecodable)
    warnings = " ".join(stages["collect"]["warnings"])
    assert "source own was not read whole" in warnings
    assert all(kind in warnings for kind in ("3 pdf", "1 csv", "1 tar", "1 docx", "1 chat"))


def test_shared_crawls_give_what_is_expected_of_them(ingested):
    stages, _ = ingested
    facts = {one["source"]: one for one in json.loads((output(stages, "collect") / "sources.json").read_text())}
    if not shared_crawls():
        pytest.skip("the shared crawls are not here")
    found = {name: (one["pages"], sum(one["dropped"].values())) for name, one in facts.items() if name != "own"}
    cases = json.loads((SHARED / "cases/data/warc/expected.json").read_text())
    expected = {name: (case["kept"], case["dropped"]) for name, case in cases.items()}
    samples = {path.name: path for path in shared_crawls() if path.name not in cases}
    assert {name: counts for name, counts in found.items() if name in cases} == expected
    for name, path in samples.items():
        with path.open("rb") as stream:
            responses = sum(record.rec_type in ("response", "resource") for record in ArchiveIterator(stream))
        assert sum(found[name]) == responses
