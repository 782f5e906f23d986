"""Answers of chat models mean what their words say, and a wrong answer stays wrong in every form."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from tests.evaluation.chat_answers import CODE, HELPERS, LABELS, MATH, NUMBERS, PROMPT
from tests.evaluation.models_for_tests import SHARED_DATA

from qwenops.evaluation.answers import final_label, final_math, final_number, same_label, same_number
from qwenops.evaluation.mathematics import same_math
from qwenops.evaluation.scoring import program, score_response
from qwenops.platform.sandbox.judging import Sandbox
from qwenops.tasks.evalitem import EvalItem
from qwenops.tasks.evalsets import load

CASES = Path(__file__).parents[2].parent / "shared" / "cases" / "evaluation"


def code_item(prefix: str, tests: str) -> EvalItem:
    return EvalItem("x/0", "x", "python", prefix, prefix, "python", facts={"prefix": prefix, "tests": tests})


@pytest.mark.parametrize(("response", "label"), LABELS)
def test_a_label_is_read_in_every_form(response: str, label: str):
    assert final_label(response) == label
    assert same_label(response, label)
    others = ("(A)", "(B)", "(C)") if label.startswith("(") else ("Yes", "No", "True", "False", "Valid", "Invalid")
    assert not any(same_label(response, other) for other in others if other != label)


@pytest.mark.parametrize(("response", "number"), NUMBERS)
def test_a_number_is_read_in_every_form(response: str, number: str):
    assert same_number(final_number(response), number), final_number(response)


@pytest.mark.parametrize(("response", "right"), MATH)
def test_mathematics_is_compared_by_meaning(response: str, right: str):
    assert same_math(final_math(response), right), final_math(response)
    assert not same_math(final_math(response), "8")


def test_a_point_groups_only_where_the_language_groups_so():
    assert final_number("1.200", "de") == "1200"
    assert final_number("1.200", "en") == "1.200"
    assert final_number("0.125", "de") == "0.125"


@pytest.mark.parametrize(
    "response", ["Either (A) or (B).", "The answer is (A) or (B).", "The answer is A/B.", "答案是A或B"]
)
def test_two_labels_are_no_answer(response: str):
    assert not any(same_label(response, label) for label in ("(A)", "(B)"))


def test_an_option_may_be_named_by_its_words():
    question = "Which day?\nOptions:\n(A) Monday\n(B) Tuesday"
    assert same_label("So the answer is Tuesday.", "(B)", question)
    assert not same_label("So the answer is Monday.", "(B)", question)


def test_free_words_and_brackets_are_compared_as_they_are():
    assert same_label("The answer is `] ] )`.", "] ] )")
    assert not same_label("The answer is ] ]", "] ] )")
    assert same_label("cat no zebra", "cat no zebra")
    assert same_label("The answer is cat, no, zebra.", "cat no zebra")
    assert same_label("There are **7** of them.", "7")


def test_a_number_too_large_to_compute_is_not_computed():
    assert not same_math("9^{9^{9^9}}", "1")
    assert not same_math("9^{99999999}", "1")
    assert not same_math("99999999!", "1")


def test_code_is_found_in_every_wrapping():
    court, item = Sandbox.open("bubblewrap", 20.0), code_item(PROMPT, "assert root(8) == 2 and root(18) == 3")
    verdicts = court.judge_all([program(item, answer) for answer in CODE.values()])
    assert [name for name, verdict in zip(CODE, verdicts, strict=True) if not verdict.passed] == []


@pytest.mark.parametrize(
    "answer", ["", "I cannot help.", "```python\ndef root(n):\n    return n\n```", "```python\ndef (\n```", HELPERS]
)
def test_a_wrong_program_stays_wrong(answer: str):
    item = code_item(PROMPT, "assert root(8) == 2")
    assert score_response(item, answer, lambda made: Sandbox.open("bubblewrap", 20.0).judge(made).passed) == 0


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the official sets are not on this machine")
@pytest.mark.parametrize("form", ["So the answer is {}.", "**Answer:** {}", "The answer is: **{}**", "{}"])
def test_every_gold_of_bbh_is_read_back(form: str):
    items = load("bbh", SHARED_DATA / "bbh")
    assert [item.gold for item in items if not score_response(item, form.format(item.gold), None)] == []
    pairs = [(a, b) for a, b in pairwise(items) if a.subject == b.subject and a.gold != b.gold]
    assert [a.gold for a, b in pairs if score_response(a, form.format(b.gold), None)] == []


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not on this machine")
def test_every_shared_case_is_right():
    rows = [json.loads(line) for line in (CASES / "chat_answers.jsonl").read_text(encoding="utf-8").splitlines()]
    scorers = {"label": "exact", "number": "number", "math": "math"}
    items = [EvalItem("x/0", "x", "x", "", "", scorers[row["kind"]], gold=row["right"]) for row in rows]
    wrong = [
        row["answer"] for row, item in zip(rows, items, strict=True) if not score_response(item, row["answer"], None)
    ]
    assert wrong == []
    codes = [json.loads(line) for line in (CASES / "code_answers.jsonl").read_text(encoding="utf-8").splitlines()]
    programs = [program(code_item(row["prompt"], row["tests"]), row["answer"]) for row in codes]
    verdicts = Sandbox.open("bubblewrap", 20.0).judge_all(programs)
    assert [verdict.passed for verdict in verdicts] == [row["passes"] for row in codes]
