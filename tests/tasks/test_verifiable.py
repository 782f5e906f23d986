"""Verifiable tasks: right answers, splits, composition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenops.errors import ContractError, RecipeError
from qwenops.tasks.safety_prompts import LANGUAGES, load
from qwenops.tasks.verifiable import KINDS, compose, expected_answer, generate, split_of, verify

DIGITS = st.text("0123456789", min_size=2, max_size=8)


def verifier(*steps: str, items: str) -> dict:
    return {"kind": "+".join(steps), "steps": list(steps), "items": items}


@pytest.mark.parametrize("kind", KINDS)
def test_generated_rows_carry_right_answers_and_keep_to_their_split(kind):
    train, heldout = generate(kind, 20, 7, "train", max_digits=8), generate(kind, 6, 7, "heldout", max_digits=8)
    assert all(verify(row.verifier, row.response) and not verify(row.verifier, row.response + "1") for row in train)
    assert {split_of(row.instruction) for row in train} == {"train"}
    assert {split_of(row.instruction) for row in heldout} == {"heldout"}
    assert train == generate(kind, 20, 7, "train", max_digits=8)


@given(DIGITS)
def test_answers_agree_with_their_definition(items):
    assert expected_answer(verifier("reverse", items=items)) == "".join(reversed(items))
    assert int(expected_answer(verifier("max", items=items))) == max(map(int, items))
    assert expected_answer(verifier("sort", "reverse", items=items)) == expected_answer(
        verifier("sort_down", items=items)
    )
    assert expected_answer(verifier("reverse", "reverse", items=items)) == items


def test_white_space_around_an_answer_is_forgiven_and_nothing_else():
    task = verifier("copy", items="123")
    assert verify(task, " 123\n")
    assert not verify(task, "123.")


def test_composing_adds_a_step_and_refuses_what_cannot_follow():
    child = compose(verifier("reverse", items="381752"), "drop_first")
    assert child is not None
    assert child.instruction == "Reverse, then drop the first: 381752"
    assert child.response == "57183"
    assert compose(verifier("max", items="12"), "reverse") is None
    assert compose(verifier("reverse", items="12"), "reverse") is None


def test_impossible_requests_are_recipe_errors():
    with pytest.raises(RecipeError, match="unknown task kind"):
        generate("juggle", 1, 0, "train")
    with pytest.raises(RecipeError, match="cannot make"):
        generate("copy", 200, 0, "heldout", min_digits=2, max_digits=2)


def test_a_foreign_verifier_is_a_contract_error():
    with pytest.raises(ContractError):
        verify({"kind": "ifeval"}, "x")


def test_safety_prompts_are_unique_split_and_answered_in_every_language():
    prompts = load()
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    assert not {p.text for p in load("train")} & {p.text for p in load("heldout")}
    for language in LANGUAGES:
        held = load("heldout", language)
        assert {p.category for p in held} == {"illegal", "fraud", "pornography", "privacy", "benign"}
        assert {p.novelty for p in held} == {"wording", "topic"}
        assert all(p.answer != p.deviated for p in held)
