"""A run whose stages stumble over secrets writes none: not in logs, events, manifests, MLflow or the console."""

import pytest
from tests.platform.test_stage import run_counter, toy  # noqa: F401

from qwenops.errors import StageError
from qwenops.platform.context import RunContext
from qwenops.platform.mlflow.tracking import close_run, open_run

# Given by name through the context, by a telling name, and read by the stage itself.
PLANTED = {
    "LICENCE_FOR_JUDGE": "planted-licence-2718",  # pragma: allowlist secret
    "HF_TOKEN": "planted-hub-token-1618",  # pragma: allowlist secret
    "PLAIN": "planted-read-value-1414",  # pragma: allowlist secret
}
_LEAKY = """
import logging, os, warnings
from qwenops.platform.secrets import read_secret
def run(config, *, stage):
    values = " ".join([read_secret("PLAIN"), os.environ["HF_TOKEN"], os.environ["LICENCE_FOR_JUDGE"]])
    logging.getLogger("http.client").warning("header %s", values)
    stage.warn("the judge refused " + values)
    with stage.progress(2, "prompts") as progress:
        progress.advance(1, values)
    (stage.out / "value.txt").write_text("1")
    if config.fault:
        raise RuntimeError("401 for " + values)
"""


@pytest.fixture
def run_folder(toy, tmp_path, monkeypatch):  # noqa: F811
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setenv("QWENOPS_SECRETS", "LICENCE_FOR_JUDGE")
    monkeypatch.setenv("QWENOPS_LOGS", str(tmp_path / "logs"))
    (tmp_path / "package" / "toy" / "counter" / "run.py").write_text(_LEAKY)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    params = {"endpoint": {"secret": "HF_TOKEN", "pasted": PLANTED["HF_TOKEN"]}}
    parent = open_run(uri, str(tmp_path / "artifacts"), "a run", "tiny", "ab" * 32, params)
    monkeypatch.setenv("QWENOPS_TRACKING_URI", uri)
    monkeypatch.setenv("QWENOPS_PARENT_RUN_ID", parent)
    return tmp_path, uri, parent


def test_planted_secrets_are_in_no_file_of_the_run(run_folder):
    folder, _, _ = run_folder
    run_counter()
    with pytest.raises(StageError):
        run_counter(fault="bug")
    record = {"seconds": 1.0, "stages": {}, "error": PLANTED["PLAIN"]}
    close_run(RunContext.from_environment(), "FAILED", record, folder / "nothing", {})
    files = [path for path in folder.rglob("*") if path.is_file() and "package" not in path.parts]
    assert {"counter.jsonl", "counter.json", "mlflow.db", "manifest.json"} <= {path.name for path in files}
    leaks = [
        (path.name, name) for path in files for name, value in PLANTED.items() if value.encode() in path.read_bytes()
    ]
    assert leaks == []
    log = (folder / "logs" / "counter.jsonl").read_text()
    assert "401 for *** *** ***" in log
    assert "header *** *** ***" in log


def test_warning_of_a_stage_is_masked_on_the_console_and_in_the_record(run_folder, capsys):
    published = run_counter()
    assert published.manifest.warnings == ("the judge refused *** *** ***",)
    assert "the judge refused *** *** ***" in capsys.readouterr().out
