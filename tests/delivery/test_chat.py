import io

import pytest
from tests.delivery.artifacts import make_checkpoint, make_tokenizer

from qwenops.delivery.chat import chat, open_session
from qwenops.errors import RecipeError


@pytest.fixture
def model(tmp_path):
    return make_checkpoint(tmp_path / "online", make_tokenizer(tmp_path / "tokenizer"))


@pytest.mark.parametrize("mode", ["plain", "yarn", "dca"])
def test_chat_answers_every_line_until_the_input_ends(model, mode):
    out = io.StringIO()
    chat(model, mode, io.StringIO("hi\n\n/new\nyo\n"), out)
    assert out.getvalue().count("you> ") == 5


def test_session_drops_old_turns_when_the_context_is_full(model):
    session = open_session(model, "dca")
    for _ in range(6):
        session.answer("a short text", io.StringIO())


def test_session_refuses_a_message_longer_than_the_context(model):
    session = open_session(model, "plain")
    with pytest.raises(RecipeError, match="too long"):
        session.answer("text " * 200, io.StringIO())


def test_streamed_text_is_the_answer(model):
    out = io.StringIO()
    answer = open_session(model, "dca").answer("hi", out)
    assert out.getvalue().rstrip("\n") == answer.rstrip("\n")


def test_chat_with_no_model_says_what_to_give(tmp_path):
    with pytest.raises(RecipeError, match="no model"):
        open_session(tmp_path, "plain")
