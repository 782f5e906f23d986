"""The contamination rule: what escapes it, what must not, and the words it compares."""

import pytest

from qwenops.tasks.overlap import OverlapIndex, gram_hashes, is_unspaced, words

ITEM = (
    "A farmer sells forty seven baskets of ripe plums on Monday and twice as many on Tuesday, then gives a fifth of "
    "the money to her brother. How much is left when one basket costs three coins?"
)
TOKENS = words(ITEM)
NOISE = " ".join(f"noise{i}" for i in range(400))


def index(**settings):
    return OverlapIndex([("gsm", "1", ITEM)], **settings)


@pytest.mark.parametrize(
    "text",
    [
        ITEM,
        ITEM.upper().replace(",", " --- "),
        f"{NOISE} {ITEM} {NOISE}",
        " ".join(TOKENS[:20]) + " extra words between " + " ".join(TOKENS[20:]),
    ],
)
def test_matches_verbatim_or_disguised_item_is_found(text):
    assert [match.item for match in index().matches(text)] == ["1"]


def test_matches_common_phrase_of_thirteen_words_is_kept_by_subsequence_and_found_by_ngram():
    text = f"{NOISE} {' '.join(TOKENS[:13])} {NOISE}"
    assert index().matches(text) == []
    assert len(index(rule="ngram").matches(text)) == 1


def test_matches_twelve_words_in_a_row_are_kept():
    assert index(rule="ngram").matches(f"{NOISE} {' '.join(TOKENS[:12])} {NOISE}") == []


def test_matches_paraphrase_below_the_share_is_kept():
    text = " ".join(TOKENS[:14]) + " " + " ".join(f"other{i}" for i in range(30))
    assert index().matches(text) == []


def test_matches_far_away_words_of_a_long_document_do_not_add_up():
    text = " ".join(TOKENS[:13]) + " " + NOISE + " " + " ".join(word + " x y z" for word in TOKENS[13:])
    assert index().matches(text) == []


def test_matches_short_item_only_when_asked():
    short = [("quiz", "1", "What is the capital of France?")]
    text = f"{NOISE} what is the capital of france {NOISE}"
    assert OverlapIndex(short).matches(text) == []
    assert len(OverlapIndex(short, short_items="contain").matches(text)) == 1


def test_matches_unspaced_script_counts_characters():
    item = "小明在星期一卖了四十七篮李子，星期二卖了两倍，他一共卖了多少篮？"
    found = OverlapIndex([("zh", "1", item)]).matches("前言。" + item.replace("，", "") + "结束")
    assert found[0].share == 1.0


def test_words_normalise_case_punctuation_and_composition():
    assert words("Cafe\u0301, DON'T!") == ["caf\u00e9", "don", "t"]
    assert words("Hello,  World") == words("hello world")
    assert is_unspaced(words("我们在这里")) and not is_unspaced(words("we are here"))


def test_gram_hashes_depend_on_order():
    assert gram_hashes(["a", "b"], 2) != gram_hashes(["b", "a"], 2)
    assert len(gram_hashes(["a"], 2)) == 0
