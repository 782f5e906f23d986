"""The contamination rule: what escapes it, what must not, and the words it compares."""

import gzip
import json
import re
from pathlib import Path

import pytest

from qwenops.tasks.evalsets import leaks_of, load
from qwenops.tasks.overlap import Leak, OverlapIndex, gram_hashes, is_unspaced, words

SHARED = Path(__file__).parents[2].parent / "shared"
ITEM = (
    "A farmer sells forty seven baskets of ripe plums on Monday and twice as many on Tuesday, then gives a fifth of "
    "the money to her brother. How much is left when one basket costs three coins?"
)
TOKENS = words(ITEM)
NOISE = " ".join(f"noise{i}" for i in range(400))


def index(**settings):
    return OverlapIndex([Leak("gsm", "1", ITEM)], **settings)


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
    short = [Leak("quiz", "1", "What is the capital of France?")]
    text = f"{NOISE} what is the capital of france {NOISE}"
    assert OverlapIndex(short).matches(text) == []
    assert len(OverlapIndex(short, short_items="contain").matches(text)) == 1


def test_matches_unspaced_script_counts_characters():
    item = "小明在星期一卖了四十七篮李子，星期二卖了两倍，他一共卖了多少篮？"
    found = OverlapIndex([Leak("zh", "1", item)]).matches("前言。" + item.replace("，", "") + "结束")
    assert found[0].share == 1.0


def test_words_normalise_case_punctuation_and_composition():
    assert words("Cafe\u0301, DON'T!") == ["caf\u00e9", "don", "t"]
    assert words("Hello,  World") == words("hello world")
    assert is_unspaced(words("我们在这里")) and not is_unspaced(words("we are here"))


def test_gram_hashes_depend_on_order():
    assert gram_hashes(["a", "b"], 2) != gram_hashes(["b", "a"], 2)
    assert len(gram_hashes(["a"], 2)) == 0


QUESTION = (
    "A ferry carries 36 cars on each trip and makes 7 trips a day. On Sunday it makes 2 trips fewer than on the other "
    "days of the week. How many cars does it carry in a week?"
)
SOLUTION = (
    "On six days it makes 6*7=<<6*7=42>>42 trips. On Sunday it makes 7-2=<<7-2=5>>5 trips. In all these are "
    "42+5=<<42+5=47>>47 trips, and 47*36=<<47*36=1692>>1692 cars.\n#### 1692"
)
HILL = (
    "The road over the hill was mended in the spring, and nobody in the village could say who had paid for the stones. "
)
FORMS = {
    "question": QUESTION,
    "question_lower": QUESTION.lower(),
    "question_broken_lines": "\n".join(QUESTION.split()),
    "question_markdown": "**" + QUESTION.replace(" ", "  ", 9) + "**",
    "answer": SOLUTION,
    "answer_without_notes": re.sub("<<.*?>>", "", SOLUTION),
    "whole": QUESTION + "\n" + SOLUTION,
    "letters": "Where does the ferry land?\nA) at the old stone quay\nB) at the new wooden pier\nC) on the beach\n"
    "D) nowhere",
}


def official(folder):
    """An index of one item of a set of word problems and one of multiple choice, from files as they are published."""
    (folder / "gsm8k").mkdir()
    (folder / "gsm8k/test.jsonl").write_text(json.dumps({"question": QUESTION, "answer": SOLUTION}))
    (folder / "mmlu/test").mkdir(parents=True)
    options = "at the old stone quay,at the new wooden pier,on the beach,nowhere"
    (folder / "mmlu/test/travel_test.csv").write_text(f"Where does the ferry land?,{options},A\n")
    return OverlapIndex(leaks_of({name: load(name, folder / name) for name in ("gsm8k", "mmlu")}))


@pytest.mark.parametrize("form", FORMS)
def test_matches_every_form_in_which_an_item_leaks_into_a_long_text(tmp_path, form):
    (match,) = official(tmp_path).matches(HILL * 40 + "\n\n" + FORMS[form] + "\n\n" + HILL * 40)
    assert match.item == ("mmlu/travel/0" if form == "letters" else "gsm8k/0")
    assert form == "letters" or form.split("_")[0] in (match.part, "question")


def test_matches_text_around_a_leak_and_a_talk_about_its_subject_are_kept(tmp_path):
    index = official(tmp_path)
    talk = "A ferry that carries 36 cars on each trip makes more trips on Sunday than on the other days of the week. "
    assert index.matches(HILL * 80) == [] == index.matches(HILL * 20 + talk * 3 + HILL * 20)


def test_matches_every_leak_of_the_cases_and_no_clean_text():
    cases, data = SHARED / "cases/data/leaks.jsonl", SHARED / "data"
    if not cases.exists():
        pytest.skip("the shared cases are not here")
    index = OverlapIndex(leaks_of({"gsm8k": load("gsm8k", data / "gsm8k")}))
    rows = [json.loads(line) for line in cases.read_text().splitlines()]
    wrong = [
        (row["item"], row["variant"])
        for row in rows
        if [(m.task, m.item) for m in index.matches(row["text"])]
        != ([(row["set"], f"{row['set']}/{row['item']}")] if row["leak"] else [])
    ]
    assert len(rows) >= 80 and wrong == []


def test_matches_no_paragraph_of_ordinary_web_text():
    folder = SHARED / "data/web_text_samples"
    if not folder.exists():
        pytest.skip("the shared samples are not here")
    names = ("gsm8k", "humaneval", "mbpp")
    index = OverlapIndex(leaks_of({name: load(name, folder.parent / name) for name in names}))
    with gzip.open(folder / "en_c4.txt.gz", "rt", encoding="utf-8") as stream:
        text = stream.read()
    assert [match for paragraph in text.split("\n") for match in index.matches(paragraph)] == []
