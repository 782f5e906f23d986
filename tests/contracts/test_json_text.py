"""What is written as JSON is JSON: a number that is none is null, and the warning says which of which file."""

import json
import math

import pytest

from qwenops.contracts.json_text import mend_json_files, replace_not_finite


def strictly(text):
    return json.loads(text, parse_constant=pytest.fail)


def test_files_with_numbers_that_are_none_become_valid_and_are_named(tmp_path):
    plain = {"history": [{"kl": 0.5}, {"kl": math.nan}], "best": -math.inf, "text": "NaN and Infinity"}
    (tmp_path / "online.json").write_text(json.dumps(plain, indent=1))
    (tmp_path / "deep").mkdir()
    rows = [{"score": 1.0}, {"score": math.inf}, {"said": "NaN"}]
    (tmp_path / "deep" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "words.json").write_text('{"text": "NaN"}')
    (tmp_path / "broken.json").write_text("{NaN")
    warnings = []
    mend_json_files(tmp_path, warnings.append)
    expected = {"history": [{"kl": 0.5}, {"kl": None}], "best": None, "text": "NaN and Infinity"}
    assert strictly((tmp_path / "online.json").read_text()) == expected
    lines = (tmp_path / "deep" / "rows.jsonl").read_text().splitlines()
    assert [strictly(line) for line in lines] == [{"score": 1.0}, {"score": None}, {"said": "NaN"}]
    assert warnings == [
        "deep/rows.jsonl: 1.score is inf, no finite number, and is null",
        "online.json: history.1.kl is nan, best is -inf, no finite number, and is null",
    ]
    assert (tmp_path / "words.json").read_text() == '{"text": "NaN"}'
    assert (tmp_path / "broken.json").read_text() == "{NaN"
    assert not list(tmp_path.rglob("*.mended"))


def test_many_are_counted(tmp_path):
    (tmp_path / "grid.json").write_text(json.dumps([math.nan] * 10))
    warnings = []
    mend_json_files(tmp_path, warnings.append)
    assert warnings == ["grid.json: 0 is nan, 1 is nan, 2 is nan and 7 more, no finite number, and is null"]


def test_plain_data_keeps_what_is_a_number():
    assert replace_not_finite({"a": (1, 2.5, math.nan), "b": True, "c": "x", "d": None}) == {
        "a": [1, 2.5, None],
        "b": True,
        "c": "x",
        "d": None,
    }
