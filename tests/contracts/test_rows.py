"""Conversations and preferences: round trips, and rows that must be refused."""

from dataclasses import replace

import pytest

from qwenops.contracts.conversation import Conversation, answer, ask, read_conversations, write_conversations
from qwenops.contracts.preference import Preference, read_preferences, write_preferences
from qwenops.errors import ContractError

ROW = Conversation(id="a", messages=answer(ask("hi\n\u2028there"), "hello"), tags=("x",), verifier={"kind": "k"})
PAIR = Preference("p", ask("q"), "good", "bad", "s", "ranked", "person:1")


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [ROW, replace(ROW, id="b", split="heldout", messages=ask("only a question"))]
    assert write_conversations(tmp_path, rows) == 2
    assert read_conversations(tmp_path) == rows
    assert read_conversations(tmp_path, "heldout") == rows[1:]
    assert (rows[0].response, rows[1].response, rows[1].is_answered) == ("hello", "", False)
    write_preferences(tmp_path, [PAIR])
    assert read_preferences(tmp_path) == [PAIR]


@pytest.mark.parametrize(
    "messages",
    [
        (),
        ({"role": "assistant", "content": "x"},),
        (*ask("a"), *ask("b")),
        ask("  "),
        ({"role": "robot", "content": "x"},),
    ],
)
def test_messages_out_of_turn_or_empty_are_refused(tmp_path, messages):
    with pytest.raises(ContractError):
        write_conversations(tmp_path, [replace(ROW, messages=messages)])


@pytest.mark.parametrize("fault", [{"rejected": "good"}, {"chosen": " "}, {"margin": 0.0}, {"chosen_finish": "length"}])
def test_pairs_that_teach_nothing_are_refused(tmp_path, fault):
    with pytest.raises(ContractError):
        write_preferences(tmp_path, [replace(PAIR, **fault)])


def test_repeated_ids_and_broken_lines_are_refused(tmp_path):
    with pytest.raises(ContractError, match="twice"):
        write_conversations(tmp_path, [ROW, ROW])
    (tmp_path / "demonstrations.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(ContractError, match="line 1 is not a conversation"):
        read_conversations(tmp_path)
    (tmp_path / "demonstrations.jsonl").write_text("not json\n")
    with pytest.raises(ContractError, match="line 1 is not JSON"):
        read_conversations(tmp_path)
