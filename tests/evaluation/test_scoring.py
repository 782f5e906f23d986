"""Scorers follow their benchmarks' definitions."""

import itertools
from dataclasses import replace

import pytest
from tests.evaluation.models_for_tests import SHARED_DATA

from qwenops.errors import StageError
from qwenops.evaluation.answers import final_label, final_math, final_number, same_number
from qwenops.evaluation.mathematics import same_math
from qwenops.evaluation.scoring import pass_at_k, program, score_response
from qwenops.platform.sandbox.judging import Program, Sandbox
from qwenops.tasks.evalitem import EvalItem
from qwenops.tasks.evalsets import choose_items, load


def code_item(prefix: str, tests: str) -> EvalItem:
    return EvalItem("x/0", "x", "python", prefix, prefix, "python", facts={"prefix": prefix, "tests": tests})


def passes(program: Program) -> bool:
    return Sandbox.open("bubblewrap", 10.0).judge(program).passed


@pytest.mark.parametrize(
    ("response", "number"),
    [
        ("She has 3 left.\n#### 1,234", "1234"),
        ("so 3 + 4 = 7. The answer is $18.50.", "18.50"),
        ("first 5 then 12", "12"),
        ("none", ""),
        ("The answer is -3, not 4", "-3"),
    ],
)
def test_final_number_prefers_the_marked_answer(response: str, number: str):
    assert final_number(response) == number


def test_numbers_are_compared_by_value():
    assert same_number("18", "18.0")
    assert not same_number("18", "18.5")
    assert not same_number("", "18")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (r"\dfrac{1}{2}", r"\frac12"),
        ("1/2", r"\frac{1}{2}"),
        (r"\left(1, 2\right)", "(1,2)"),
        (".5", "0.5"),
        ("x=3", "3"),
        (r"10\%", "10"),
        (r"90^\circ", "90"),
        (r"\$36", "36"),
        ("1,000", "1000"),
        (r"\sqrt3", r"\sqrt{3}"),
        (r"5\text{ cm}", "5"),
        ("3.0", "3"),
    ],
)
def test_math_answers_are_equal_after_normalisation(left: str, right: str):
    assert same_math(left, right)


def test_different_or_empty_math_answers_are_not_equal():
    assert not same_math(r"\frac{1}{2}", r"\frac{1}{3}")
    assert not same_math("", "")


def test_final_math_takes_the_box_before_the_sentence():
    assert final_math(r"The answer is 3. \boxed{4}") == "4"
    assert final_math("The answer is $5$.") == "5"


def test_bbh_label_follows_the_answer_phrase():
    assert final_label("Because. So the answer is (B).\n\nQ: next") == "(B)"
    assert final_label("] ]\n") == "] ]"


@pytest.mark.parametrize(("samples", "correct", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (4, 4, 4), (7, 3, 5)])
def test_pass_at_k_is_the_share_of_subsets_with_a_success(samples: int, correct: int, k: int):
    outcomes = [True] * correct + [False] * (samples - correct)
    subsets = list(itertools.combinations(outcomes, k))
    assert pass_at_k(samples, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_with_too_few_samples_is_refused():
    with pytest.raises(StageError):
        pass_at_k(1, 1, 2)


PREFIX = 'from typing import List\n\n\ndef double(x: int) -> int:\n    """Twice x."""\n'
TESTS = "def check(f):\n    assert f(2) == 4\ncheck(double)\n"


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("    return 2 * x\n\nprint(undefined)", True),
        ("Here it is:\n```python\ndef double(x: int) -> int:\n    return x + x\n```\nDone.", True),
        ("```python\ndef double(x: List) -> int:\n    return x + x\n```", True),
        ("    return x", False),
        ("", False),
        ("    import os; os._exit(0)", False),
    ],
)
def test_code_is_completed_run_and_judged(response: str, right: bool):
    assert score_response(code_item(PREFIX, TESTS), response, passes) == float(right)


def test_code_without_a_prefix_stands_alone():
    made = program(code_item("", "assert one() == 1"), "def one():\n    return 1\n[DONE]\nmore text")
    assert "more text" not in made.code
    assert passes(made)


@pytest.mark.integration
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the official sets are not on this machine")
@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_every_reference_program_passes_and_no_empty_one_does(name: str):
    items = load(name, SHARED_DATA / name)
    court = Sandbox.open("bubblewrap", 10.0)
    right = court.judge_all([program(item, item.target) for item in items])
    assert sum(verdict.passed for verdict in right) >= 0.995 * len(items)
    wrong = [replace(program(item, item.target), code="") for item in items]
    assert not any(verdict.passed for verdict in court.judge_all(wrong))


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the official sets are not on this machine")
@pytest.mark.parametrize(
    ("name", "folder", "least"),
    [
        ("humaneval", "humaneval", 1.0),
        ("mbpp", "mbpp", 0.9),
        ("gsm8k", "gsm8k", 1.0),
        ("math", "math_word_and_competition", 1.0),
    ],
)
def test_reference_solutions_of_official_items_score(name: str, folder: str, least: float):
    items = choose_items(load(name, SHARED_DATA / folder), 12 if name in ("humaneval", "mbpp") else 300, seed=0)
    scores = [score_response(item, item.target, passes) for item in items]
    assert sum(scores) / len(scores) >= least
