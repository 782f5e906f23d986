"""The gates: good tables pass, each kind of bad one stops the run with its expectation named."""

import json

import pandas as pd
import pytest

from qwenops.contracts.gate import conversation_tables, gate, preference_tables
from qwenops.errors import ContractError

DOCUMENT = {
    "id": "a",
    "text": "some text",
    "domain": "web",
    "lang": "en",
    "lang_score": 0.9,
    "quality": 0.5,
    "split": "train",
    "license": "MIT",
}
DOMAIN = {"domain": "web", "documents": 1, "bytes": 9, "dropped_share": 0.1}
PAGE = {
    "id": "a",
    "source": "s",
    "domain": "web",
    "license": "MIT",
    "mime": "text/html",
    "raw_bytes": 10,
}
TOKENS = {
    "tokens": 5,
    "largest_id_share": 0.5,
    "ends_with_end_of_text": "yes",
    "inner_control_tokens": 0,
    "round_trip": "same",
}
SHARDS = [
    {"shard": f"{split}-web", "split": split, "tokens": 5, "documents": 1, "bytes_per_token": 3.0, "weight": 1.0}
    for split in ("train", "heldout")
]
CONVERSATION = {
    "id": "c",
    "strategy": "evolve",
    "split": "train",
    "lang": "en",
    "messages": [{"role": "user", "content": "Reverse: 12"}, {"role": "assistant", "content": "21"}],
}
PREFERENCE = {
    "id": "p",
    "strategy": "rank",
    "source": "s",
    "judge": "verifier",
    "split": "train",
    "lang": "en",
    "margin": 1.0,
    "prompt": [{"role": "user", "content": "Reverse: 12"}],
    "chosen": "21",
    "rejected": "12",
}


def documents(**changes):
    return pd.DataFrame([DOMAIN]), pd.DataFrame([DOCUMENT | changes])


def test_gate_good_documents_pass_and_write_a_page_without_remote_files(tmp_path):
    result = gate("documents.json", *documents(), tmp_path)
    page = (tmp_path / "gate" / "documents.html").read_text()
    assert result.failures == ()
    assert "text" in page and "http" not in page
    assert json.loads((tmp_path / "gate" / "documents.json").read_text())["sample"]["success"]


@pytest.mark.parametrize(
    ("changes", "column"),
    [
        ({"id": None}, "id"),
        ({"text": ""}, "text"),
        ({"domain": "spam"}, "domain"),
        ({"lang": "english"}, "lang"),
        ({"lang_score": 1.5}, "lang_score"),
        ({"split": "test"}, "split"),
        ({"license": ""}, "license"),
    ],
)
def test_gate_bad_document_stops_and_names_the_column(tmp_path, changes, column):
    with pytest.raises(ContractError, match=f"of {column}"):
        gate("documents.json", *documents(**changes), tmp_path)
    assert (tmp_path / "gate" / "documents.html").exists()


def test_gate_repeated_id_stops(tmp_path):
    with pytest.raises(ContractError, match="unique of id"):
        gate("documents.json", pd.DataFrame([DOMAIN]), pd.DataFrame([DOCUMENT, DOCUMENT]), tmp_path)


def test_gate_warning_is_reported_and_does_not_stop(tmp_path):
    result = gate("documents.json", pd.DataFrame([DOMAIN | {"dropped_share": 0.6}]), pd.DataFrame([DOCUMENT]), tmp_path)
    assert "dropped_share" in result.failures[0]


def test_gate_missing_column_is_named(tmp_path):
    with pytest.raises(ContractError, match="no column license"):
        gate("documents.json", pd.DataFrame([DOMAIN]), pd.DataFrame([DOCUMENT]).drop(columns="license"), tmp_path)


def test_gate_empty_sample_stops(tmp_path):
    with pytest.raises(ContractError, match="row_count"):
        gate("documents.json", pd.DataFrame([DOMAIN]), pd.DataFrame([DOCUMENT]).head(0), tmp_path)


def test_gate_unknown_suite_is_refused(tmp_path):
    with pytest.raises(ContractError, match="no expectation suite"):
        gate("nothing.json", *documents(), tmp_path)


def test_gate_equal_tables_give_equal_files(tmp_path):
    for name in ("one", "two"):
        gate("documents.json", *documents(), tmp_path / name)
    for suffix in ("json", "html"):
        first, second = (tmp_path / name / "gate" / f"documents.{suffix}" for name in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()


def test_gate_pages(tmp_path):
    summary = pd.DataFrame([{"source": "s", "domain": "web", "pages": 1, "bytes": 10}])
    assert gate("pages.json", summary, pd.DataFrame([PAGE]), tmp_path).failures == ()
    with pytest.raises(ContractError, match="raw_bytes"):
        gate("pages.json", summary, pd.DataFrame([PAGE | {"raw_bytes": 0}]), tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{"tokens": 1}, {"largest_id_share": 1.0}, {"ends_with_end_of_text": "no"}, {"inner_control_tokens": 1}],
)
def test_gate_bad_tokens_stop(tmp_path, changes):
    assert gate("tokens.json", pd.DataFrame(SHARDS), pd.DataFrame([TOKENS]), tmp_path).failures == ()
    with pytest.raises(ContractError, match=next(iter(changes))):
        gate("tokens.json", pd.DataFrame(SHARDS), pd.DataFrame([TOKENS | changes]), tmp_path)


def test_gate_tokens_without_heldout_shard_stop(tmp_path):
    with pytest.raises(ContractError, match="split"):
        gate(
            "tokens.json",
            pd.DataFrame([SHARDS[0], SHARDS[0] | {"shard": "train-code"}]),
            pd.DataFrame([TOKENS]),
            tmp_path,
        )


def test_gate_conversations_need_an_answer(tmp_path):
    assert gate("conversations.json", *conversation_tables([CONVERSATION]), tmp_path).failures == ()
    unanswered = CONVERSATION | {"messages": [*CONVERSATION["messages"][:1], {"role": "assistant", "content": ""}]}
    with pytest.raises(ContractError, match="answer_characters"):
        gate("conversations.json", *conversation_tables([unanswered]), tmp_path)


def test_gate_preferences_need_two_different_answers(tmp_path):
    assert gate("preferences.json", *preference_tables([PREFERENCE]), tmp_path).failures == ()
    with pytest.raises(ContractError, match="same_answer"):
        gate("preferences.json", *preference_tables([PREFERENCE | {"rejected": "21"}]), tmp_path)
