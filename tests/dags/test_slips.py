"""Slips on the command line: each ends with one message and the status of its kind, and never with a traceback."""

import json
import os
import shlex
from pathlib import Path

import pytest
from tests.dags.conftest import qwenops

ROWS = Path(__file__).parents[3] / "shared" / "cases" / "ground" / "slips.jsonl"
NINES, DEEP = "9" * 5000, "[" * 60_000
PLAN = [
    "collect.sources.0.cap_bytes=5",
    "collect.sources.1={}",
    "pretrain.phases.0=64",
    "seed.value=3",
    "sft.training.learning_rate=-Infinity",
    "dpo.training.learning_rate=1e999",
    "reward.training.epsilon=NaN",
    f"seed={NINES}",
    "seed=99999999999999999999",
    "seed=-4",
    "pretrain.training.steps=123456789012345678901234567890",
    f"collect.sources={DEEP}",
    'collect.sources=[{"kind":"folder","kind":"code","name":"a","path":"/a"}]',
    'export={"a":1,"a":2}',
    'name="\\ud800"',
    "name=../elsewhere",
    "name=",
    "=5",
    "",
    ".=5",
]
TEXTS = ["{", '{"seed": 1, "seed": 2}', '{"seed": Infinity}', "{}", '{"name": 3}']
FILES = [b"[]", b"3", b"null", b"\xff\xfe{}", b'{"name": ', b"", b'{"seed": 1e400}']
RECORDS = ["{}", "[]", "null", "3", "{", '{"stages": []}', '{"run_name": "a", "stages": {"sft": null}}']


def refused(result, status=2):
    """Check that a command ended with `status` and one message; returns it."""
    assert result.returncode == status, result.stdout[-500:] + result.stderr[-3000:]
    assert "Traceback" not in result.stderr
    assert result.stderr.count("qwenops: ") == 1
    assert len(result.stderr) < 3000
    return result.stderr


@pytest.mark.parametrize("override", PLAN, ids=lambda text: text[:30] or "nothing")
def test_override_that_is_a_slip_is_refused(typed, override):
    assert "RecipeError" in refused(typed("plan", "smoke", "--set", override))


def test_process_ends_with_the_message_and_the_status():
    for override in (f"collect.sources={DEEP}", f"seed={NINES}", "name="):
        assert "RecipeError" in refused(qwenops("plan", "smoke", "--set", override))


def test_later_override_of_the_same_field_wins(typed):
    result = typed("plan", "smoke", "--set", "name=first", "--set", "name=second")
    assert result.stdout.startswith("recipe      second ")


@pytest.mark.parametrize("text", TEXTS)
def test_recipe_text_that_is_a_slip_is_refused(typed, text):
    refused(typed("plan", text))


@pytest.mark.parametrize("content", FILES)
def test_file_that_is_no_recipe_is_refused_by_its_name(typed, tmp_path, content):
    (tmp_path / "mine.json").write_bytes(content)
    for command in (("plan", tmp_path / "mine.json"), ("plan", "smoke", "--placement", tmp_path / "mine.json")):
        assert "mine.json" in refused(typed(*command)) or content in (b"[]", b"3", b"null")


def test_folder_given_as_a_recipe_or_a_placement_is_refused(typed, tmp_path):
    (tmp_path / "x.json").mkdir()
    refused(typed("plan", tmp_path / "x.json"))
    refused(typed("plan", "smoke", "--placement", tmp_path / "x.json"))


@pytest.mark.parametrize("record", RECORDS)
def test_foreign_record_is_refused_by_whatever_reads_one(typed, tmp_path, record):
    (tmp_path / "run.json").write_text(record)
    for command in (("show", tmp_path), ("compare", tmp_path, tmp_path), ("review", tmp_path)):
        assert "holds no run record" in refused(typed(*command))


def test_record_that_is_a_folder_is_refused(typed, tmp_path):
    (tmp_path / "run.json").mkdir()
    refused(typed("show", tmp_path))


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "smoke", "--out", ""),
        ("run", "smoke", "--out", "gs://bucket/run"),
        ("run", "smoke", "--out", "file:///tmp/run"),
        ("run", "smoke", "--out", os.fsdecode(b"/tmp/\xff")),
        ("run", "smoke", "--until", ""),
        ("run", "smoke", "--until", "Report"),
        ("run", "smoke", "--from", "sft", "--until", "pretrain"),
        ("compile", "smoke", "--placement", "kind", "--pipeline", "data", "--until", "sft", "-o", "x.yaml"),
        ("compile", "smoke", "--placement", "kind", "-o", ""),
        ("show", ""),
        ("upcycle", "/nowhere", "/tmp/x", "--active", "99"),
        ("upcycle", "/nowhere", "/tmp/x", "--expert-width", "-3"),
        ("upcycle", "/nowhere", "/tmp/x", "--shard-gb", "nan"),
        ("submit", "x.yaml", "--timeout", "inf"),
    ],
    ids=lambda arguments: " ".join(arguments).encode("ascii", "replace").decode()[:50],
)
def test_argument_that_is_a_slip_is_refused(typed, monkeypatch, arguments, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = typed(*arguments)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr


def test_name_that_the_terminal_cannot_show_ends_no_command(tmp_path):
    record = {"run_name": "Nachtläufe 夜", "recipe": "smoke", "status": "succeeded", "seconds": 1.0, "stages": {}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    result = qwenops("show", tmp_path, PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, "")
    assert "\\u591c" in result.stdout


def test_error_nobody_foresaw_is_one_message_and_a_traceback_only_when_asked(tmp_path):
    # A stand-in for a defect: a library that fails while it is imported.
    (tmp_path / "numpy.py").write_text("raise ZeroDivisionError('planted')")
    words = refused(qwenops("plan", "smoke", PYTHONPATH=str(tmp_path)), status=1)
    assert "ZeroDivisionError: planted" in words
    loud = qwenops("--debug", "plan", "smoke", PYTHONPATH=str(tmp_path))
    assert loud.returncode == 1
    assert loud.stderr.count("Traceback") == 1


@pytest.mark.skipif(not ROWS.is_file(), reason="the collected cases are not here")
def test_collected_slips_end_as_they_should(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    for row in map(json.loads, ROWS.read_text().splitlines()):
        arguments = shlex.split(row["command"].replace("FOLDER_WITH_run.json_OF_{}", str(tmp_path)))[1:]
        if row["status"]:
            refused(qwenops(*arguments, **row["environment"]), row["status"])
