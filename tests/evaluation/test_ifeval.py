"""Each IFEval rule accepts a response that obeys and rejects one that does not."""

from typing import Any

import pytest

from qwenops.errors import ContractError
from qwenops.evaluation.ifeval import RULES, follows, follows_all

CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["sun", "moon"]}, "Sun and moon", "Only the sun"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "A category", "The cat."),
    ("keywords:frequency", {"keyword": "ha", "frequency": 2, "relation": "at least"}, "ha ha", "ha"),
    ("keywords:letter_frequency", {"letter": "z", "let_frequency": 2, "let_relation": "less than"}, "zoo", "zigzag z"),
    (
        "language:response_language",
        {"language": "de"},
        "Das ist ein guter Tag und die Sonne scheint.",
        "This is a good day and the sun is shining.",
    ),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "One. Two!", "One only"),
    ("length_constraints:number_words", {"num_words": 4, "relation": "less than"}, "one two three", "a b c d"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n\n***\n\nb", "a\n\nb"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "First.\n\nThen, go.",
        "Then.\n\nFirst.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] at [address]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye\nP.S. one more thing", "Bye"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n* b", "* a\n* b\n- c"),
    ("detectable_format:constrained_response", {}, "My answer is yes.", "Yes."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "*a*"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1 a\nSection 2 b",
        "Section 1 a",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "a: 1"),
    ("detectable_format:title", {}, "<<A title>>\ntext", "A title"),
    ("combination:two_responses", {}, "one\n******\ntwo", "one"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."}, "say hi. Hi!", "Hi!"),
    ("startend:end_checker", {"end_phrase": "the end"}, "So it is The End", "the end is near"),
    ("startend:quotation", {}, '"quoted"', "not quoted"),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "GO ON", "GO on"),
    ("change_case:english_capital", {}, "THE WHOLE ANSWER IS WRITTEN IN CAPITAL LETTERS", "Not all capitals here"),
    ("change_case:english_lowercase", {}, "the whole answer is written in small letters", "Not all small here"),
    ("punctuation:no_comma", {}, "no comma here", "a comma, here"),
]


@pytest.mark.parametrize(("name", "kwargs", "good", "bad"), CASES, ids=[case[0] for case in CASES])
def test_rule_tells_obeying_from_disobeying(name: str, kwargs: dict[str, Any], good: str, bad: str):
    assert follows(name, kwargs, "prompt", good)
    assert not follows(name, kwargs, "prompt", bad)


def test_all_published_rules_are_covered():
    assert {case[0] for case in CASES} == set(RULES)
    assert len(RULES) == 25


def test_prompt_counts_only_when_every_rule_holds():
    checks = [("punctuation:no_comma", {}), ("keywords:existence", {"keywords": ["tea"]})]
    assert follows_all(checks, "p", "tea without milk")
    assert not follows_all(checks, "p", "tea, without milk")


def test_empty_response_follows_nothing():
    assert not follows_all([("punctuation:no_comma", {})], "p", " ")


def test_unknown_rule_and_missing_parameter_are_contract_errors():
    with pytest.raises(ContractError, match="unknown"):
        follows("keywords:rhyme", {}, "p", "r")
    with pytest.raises(ContractError, match="parameter"):
        follows("keywords:existence", {}, "p", "r")
