import types

import numpy as np
import pytest
import torch
from tests.pretraining.corpus import make_tokenizer
from torch import nn

from qwenops.errors import ContractError
from qwenops.tasks.needles import ANSWER_DIGITS, WORDS, evaluate_needles, needle_rows


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def text(tokenizer):
    return np.random.default_rng(0).integers(200, 500, size=4000)


class _Reader(nn.Module):
    """Finds the first five digits in a row in every input and predicts them as its last five tokens."""

    def __init__(self, vocabulary: int, digits: list[int], wrong: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(vocabulary))
        self.config = types.SimpleNamespace(_attn_implementation="sdpa")
        self.digits, self.wrong = set(digits), wrong

    def get_output_embeddings(self):
        return types.SimpleNamespace(weight=self.weight)

    def model(self, input_ids, **_):
        hidden = torch.zeros(*input_ids.shape, self.weight.shape[0])
        for row, ids in enumerate(input_ids.tolist()):
            start = next(i for i in range(len(ids)) if all(token in self.digits for token in ids[i : i + 5]))
            answer = ids[start : start + 5]
            if row % self.wrong == 0:
                answer[2] = min(self.digits - {answer[2]})
            hidden[row, -5:, :] = nn.functional.one_hot(torch.tensor(answer), self.weight.shape[0]).float()
        return types.SimpleNamespace(last_hidden_state=hidden)


def _text_of(tokenizer, rows):
    return [tokenizer.decode(row) for row in rows.tokens]


def test_needle_rows_ask_for_the_number_they_state(tokenizer, text):
    rows = needle_rows(tokenizer, text, length=160, count=20, seed=1, split="train")
    assert rows.tokens.shape == (20, 161)
    for row in _text_of(tokenizer, rows):
        question, answer = row[:-ANSWER_DIGITS].rsplit("\n", 1)[1], row[-ANSWER_DIGITS:]
        assert answer.isdigit()
        assert f"{question}{answer}." in row[:-ANSWER_DIGITS]


def test_needle_rows_of_the_same_seed_are_equal_and_of_another_differ(tokenizer, text):
    one, two, other = (
        needle_rows(tokenizer, text, length=160, count=4, seed=seed, split="train") for seed in ((1, 2), (1, 2), (1, 3))
    )
    assert np.array_equal(one.tokens, two.tokens)
    assert not np.array_equal(one.tokens, other.tokens)


def test_needles_of_the_two_splits_share_no_word(tokenizer, text):
    def words(split):
        rows = needle_rows(tokenizer, text, length=160, count=60, seed=1, split=split)
        return {word for row in _text_of(tokenizer, rows) for word in WORDS if f"number of {word} is" in row}

    assert len(words("train")) > 20
    assert not words("train") & words("heldout")


def test_needle_rows_follow_the_depths_asked_for(tokenizer, text):
    rows = needle_rows(tokenizer, text, length=400, count=6, seed=1, split="heldout", depths=(0.0, 0.5, 1.0))
    assert rows.depths.tolist() == [0.0, 0.5, 1.0, 0.0, 0.5, 1.0]
    starts = [row.index("\nThe secret") / len(row) for row in _text_of(tokenizer, rows)]
    assert starts[0] == 0
    assert 0.3 < starts[1] < 0.6 < starts[2] < 0.95


def test_needle_rows_without_room_say_how_long_they_must_be(tokenizer, text):
    with pytest.raises(ContractError, match="no room for a needle"):
        needle_rows(tokenizer, text, length=20, count=1, seed=1, split="train")


def test_loss_weights_stand_on_the_answer(tokenizer, text):
    rows = needle_rows(tokenizer, text, length=160, count=2, seed=1, split="train")
    weights = rows.loss_weights(8.0)
    assert weights.shape == (2, 160)
    assert (weights[:, -ANSWER_DIGITS:] == 8).all()
    assert (weights[:, :-ANSWER_DIGITS] == 1).all()


def test_evaluate_needles_counts_a_needle_only_when_every_digit_is_right(tokenizer, text):
    rows = needle_rows(tokenizer, text, length=160, count=12, seed=1, split="heldout")
    digits = [tokenizer.convert_tokens_to_ids(d) for d in "0123456789"]
    score = evaluate_needles(_Reader(len(tokenizer), digits, wrong=4), rows)
    assert score.count == 12
    assert score.accuracy == pytest.approx(9 / 12)
    assert score.digit_accuracy == pytest.approx(57 / 60)


def test_evaluate_needles_does_not_depend_on_the_batch_size(tokenizer, text):
    rows = needle_rows(tokenizer, text, length=160, count=12, seed=1, split="heldout")
    digits = [tokenizer.convert_tokens_to_ids(d) for d in "0123456789"]
    reader = _Reader(len(tokenizer), digits, wrong=100)
    assert evaluate_needles(reader, rows).accuracy == pytest.approx(11 / 12)
    assert evaluate_needles(reader, rows, max_batch_tokens=320).accuracy == pytest.approx(6 / 12)
