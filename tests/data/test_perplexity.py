import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenops.data.quality.config import PerplexityConfig
from qwenops.data.quality.perplexity import NgramModel, perplexities, train_models, word_hashes

_BEGIN = "<s>"


class _Dense:
    """The closed form over strings, a word at a time, with dictionaries."""

    def __init__(self, documents: list[list[str]], order: int, discount: float) -> None:
        self.order, self.discount = order, discount
        self.counts: Counter[tuple[str, ...]] = Counter()
        for words in documents:
            padded = [_BEGIN] * (order - 1) + words
            for place in range(order - 1, len(padded)):
                for n in range(1, order + 1):
                    self.counts[(n, *padded[place - n + 1 : place + 1])] += 1
        self.vocabulary = {gram[1] for gram in self.counts if gram[0] == 1}

    def probability(self, word: str, history: tuple[str, ...]) -> float:
        shorter = self.probability(word, history[1:]) if history else 1 / (len(self.vocabulary) + 1)
        n = len(history) + 1
        after = {w: self.counts[n, *history, w] for w in self.vocabulary if self.counts[n, *history, w]}
        total = sum(after.values())
        if not total:
            return shorter
        return max(after.get(word, 0) - self.discount, 0) / total + self.discount * len(after) / total * shorter

    def logs(self, words: list[str]) -> list[float]:
        padded = [_BEGIN] * (self.order - 1) + words
        return [
            math.log(self.probability(padded[place], tuple(padded[place - self.order + 1 : place])))
            for place in range(self.order - 1, len(padded))
        ]


_WORDS = st.lists(st.sampled_from(["aa", "bb", "cc", "dd", "ee"]), min_size=1, max_size=12)


def _hashed(documents: list[list[str]]) -> list[np.ndarray]:
    return word_hashes([" ".join(words) for words in documents], "en")


@settings(deadline=None)  # the first call makes the tables of characters
@given(st.lists(_WORDS, min_size=1, max_size=6), st.lists(_WORDS, min_size=1, max_size=3), st.integers(1, 4))
def test_probabilities_are_those_of_the_closed_form(train, asked, order):
    model = NgramModel.train(_hashed(train), order, 0.75)
    dense = _Dense(train, order, 0.75)
    expected = [value for words in asked for value in dense.logs(words)]
    assert model.log_probabilities(_hashed(asked)) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)  # the first call makes the tables of characters
@given(st.lists(_WORDS, min_size=1, max_size=6), st.lists(st.sampled_from(["aa", "bb", "zz"]), max_size=3))
def test_probabilities_sum_to_one_over_the_vocabulary_and_an_unknown_word(train, history):
    model = NgramModel.train(_hashed(train), 3, 0.6)
    vocabulary = [*sorted({word for words in train for word in words}), "unknown"]
    last = [model.log_probabilities(_hashed([[*history, word]]))[-1] for word in vocabulary]
    assert np.exp(last).sum() == pytest.approx(1.0, abs=1e-12)


def test_perplexity_of_text_like_the_trusted_is_lower_than_of_shuffled_text():
    sentences = [f"the {a} {b} sat on the {c} and looked at the {a}" for a in ("cat", "dog", "cow", "hen")
                 for b in ("black", "old", "young") for c in ("mat", "bed", "hill", "roof")]  # fmt: skip
    trusted = pa.table({"id": [f"t{n}" for n in range(48)], "lang": ["en"] * 48, "text": sentences})
    models = train_models(trusted, PerplexityConfig(sources=("books",)))
    like = "the old cow sat on the mat and looked at the hen"
    rows = [{"id": "a", "lang": "en", "text": like},
            {"id": "b", "lang": "en", "text": " ".join(sorted(like.split()))},
            {"id": "c", "lang": "de", "text": "ein Satz"}, {"id": "d", "lang": "en", "text": ""}]  # fmt: skip
    fluent, shuffled, unknown, empty = perplexities(rows, models)
    assert fluent < 10 < shuffled
    assert unknown is None and empty is None


def test_a_trusted_document_is_scored_by_the_half_it_is_not_in():
    texts = [f"word{n} word{n} word{n} word{n}" for n in range(40)]
    trusted = pa.table({"id": [f"t{n}" for n in range(40)], "lang": ["en"] * 40, "text": texts})
    models = train_models(trusted, PerplexityConfig(sources=("books",)))
    seen = perplexities(trusted.to_pylist(), models)
    assert min(value for value in seen if value) > 20


def test_characters_stand_for_words_where_nothing_stands_between_them():
    hashes = word_hashes(["\u4f60\u597d \u4f60", "\u4f60"], "zh")
    assert [len(words) for words in hashes] == [3, 1]
    assert hashes[0][0] == hashes[0][2] == hashes[1][0] != hashes[0][1]
