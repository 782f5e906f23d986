"""What is logged while a stage runs is one JSON object a line, where the context says, without a secret."""

import gc
import json
import logging
import sys
import warnings

import pytest

from qwenops.platform import logs
from qwenops.platform.context import RunContext

SECRET = "hunter2-hunter2"  # pragma: allowlist secret


@pytest.fixture(autouse=True)
def _collected():
    """The collector warns of what another test left open whenever it runs: before these tests, not within them."""
    gc.collect()


@pytest.fixture
def context(tmp_path):
    return RunContext(store="", events="", cache="", run_name="night", logs=str(tmp_path / "logs"))


def _fail(message: str) -> None:
    raise ValueError(message)


def _raised(message: str) -> BaseException:
    with pytest.raises(ValueError) as caught:
        _fail(message)
    return caught.value


def _lines(tmp_path, node="dedup"):
    return [json.loads(line) for line in (tmp_path / "logs" / f"{node}.jsonl").read_text().splitlines()]


def test_event_line_says_run_stage_step_rank_and_fields(context, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    with logs.logging_to(context, "dedup"):
        logs.event("begun", parts=4)
        logs.at_step(17)
        logs.event("trained", level=logging.WARNING)
    first, second = _lines(tmp_path)
    assert {
        "level": "info",
        "run": "night",
        "stage": "dedup",
        "step": None,
        "rank": 3,
        "message": "begun",
    }.items() <= first.items()
    assert first["fields"] == {"parts": 4}
    assert (second["level"], second["step"]) == ("warning", 17)
    assert first["time"] < second["time"] or first["time"] == second["time"]


def test_library_log_warning_and_traceback_go_to_the_same_file(context, tmp_path):
    with pytest.warns(UserWarning), logs.logging_to(context, "dedup"):
        logging.getLogger("a.library").warning("odd %s", "thing")
        warnings.warn("soon gone", UserWarning, stacklevel=1)
        logs.event("failed", level=logging.ERROR, error=_raised("line one\nline two"))
    library, *rest = _lines(tmp_path)
    assert (library["logger"], library["message"]) == ("a.library", "odd thing")
    assert "ValueError: line one\nline two" in rest[-1]["error"]


def test_python_warning_is_logged_and_still_shown_once(context, tmp_path, capsys):
    with pytest.warns(UserWarning, match="soon gone") as shown, logs.logging_to(context, "dedup"):
        warnings.warn("soon gone", UserWarning, stacklevel=1)
    assert len(shown) == 1
    (line,) = _lines(tmp_path)
    assert (line["message"], line["fields"]["category"]) == ("soon gone", "UserWarning")
    # The recorder above stands where the console would be; the log's own path must not print it again.
    assert "soon gone" not in capsys.readouterr().err


def test_console_keeps_the_warnings_of_libraries_that_have_no_handler(context, capsys):
    with logs.logging_to(context, "dedup"):
        logging.getLogger("plain.library").warning("on the console")
        logs.event("only in the file", level=logging.WARNING)
        own = logging.getLogger("own.library")
        own.addHandler(logging.NullHandler())
        own.warning("only where its handler says")
    assert capsys.readouterr().err == "on the console\n"


def test_pod_writes_json_lines_to_standard_error_alone(capsys, tmp_path):
    context = RunContext(store="", events="", cache="", run_name="night", logs="stderr")
    with logs.logging_to(context, "sft"):
        logs.event("begun")
        logging.getLogger("plain.library").warning("odd")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == ["begun", "odd"]


def test_pod_says_a_line_once_and_leaves_out_what_libraries_tell_of_themselves(capfd, monkeypatch):
    """Kubeflow's executor logs the root's lines from INFO on to standard output, as its `_setup_logging` has it."""
    root, executor = logging.getLogger(), logging.StreamHandler(sys.stdout)
    monkeypatch.setattr(root, "handlers", [executor])
    monkeypatch.setattr(root, "level", logging.INFO)
    context = RunContext(store="", events="", cache="", logs=logs.STANDARD_ERROR)
    with logs.logging_to(context, "dedup"):
        logs.event("begun")
        logging.getLogger("great_expectations.registry").info("registering")
        logging.getLogger("a.library").warning("odd")
    printed, written = capfd.readouterr()
    assert printed == ""
    assert [json.loads(line)["message"] for line in written.splitlines()] == ["begun", "odd"]
    assert root.handlers == [executor]
    root.info("the step goes on")
    assert "the step goes on" in capfd.readouterr().out


def test_secret_in_message_field_and_traceback_is_masked(context, tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", SECRET)
    with logs.logging_to(context, "rank"):
        error = _raised(f"401 for key {SECRET}")
        logs.event(f"key {SECRET}", level=logging.ERROR, error=error, header={"Authorization": f"Bearer {SECRET}"})
    text = (tmp_path / "logs" / "rank.jsonl").read_text()
    assert SECRET not in text
    assert text.count("***") == 3


def test_nothing_is_left_behind_when_the_block_ends(context):
    root, show = logging.getLogger(), warnings.showwarning
    before = list(root.handlers)
    with logs.logging_to(context, "dedup"):
        assert root.handlers != before
    assert (root.handlers, warnings.showwarning) == (before, show)
