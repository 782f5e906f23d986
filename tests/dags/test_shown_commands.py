"""Commands that the READMEs show and that no other test runs as they stand there: in an empty folder, word by word."""

import json
import shlex
import shutil
import subprocess

import pytest
from tests.architecture.places import ROOT
from tests.architecture.test_documents import shown_commands
from tests.dags.conftest import qwenops

SHOWN = sorted({tuple(shlex.split(command, comments=True)) for _, command in shown_commands()})
COMPILED = [words for words in SHOWN if words[:2] == ("qwenops", "compile") and len(words) > 2]
MADE = [words for words in SHOWN if words[0] == "make"]


@pytest.mark.integration
@pytest.mark.parametrize("words", COMPILED, ids=" ".join)
def test_shown_pipeline_compiles(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text(qwenops("placement", "kind").stdout)
    result = qwenops(*words[1:])
    assert result.returncode == 0, result.stderr
    assert "deploymentSpec" in (tmp_path / words[words.index("-o") + 1]).read_text()


@pytest.mark.parametrize("words", MADE, ids=" ".join)
def test_make_knows_how_to_make_what_is_shown(words):
    if shutil.which("make") is None:
        pytest.skip("no make on this machine")
    result = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


def test_placement_is_printed_as_one_to_edit():
    assert json.loads(qwenops("placement", "kind").stdout)["name"] == "kind"


def test_doctor_says_what_is_missing():
    result = qwenops("doctor")
    assert result.returncode in (0, 5), result.stderr
    assert "ok       transformers" in result.stdout
