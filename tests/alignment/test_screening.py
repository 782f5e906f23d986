"""Which prompts the online stage samples from: those that the start solves now and then."""

import pytest
import torch
from tests.alignment.conftest import small_model

from qwenops.alignment.measure_config import MeasureConfig
from qwenops.alignment.online.config import OnlineConfig
from qwenops.alignment.online.screening import filter_by_solve_rate, split_guard_prompts
from qwenops.contracts.conversation import Conversation, ask, conversation_id
from qwenops.errors import ContractError, StageError
from qwenops.generation.engine import Sampling
from qwenops.tasks.verifiable import generate

CONFIG = OnlineConfig(screened_prompts=1000)
SAMPLING = Sampling(n=8, temperature=1.0, max_new_tokens=1, seed=3)


def writes_one_of(digits, tokenizer):
    """A policy whose every answer is one of `digits`, each as likely, whatever it is asked.

    Its layers add nothing, and all embeddings point one way, so that the likeliest tokens are the longest of them.
    """
    policy = small_model()
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "o_proj" in name or "down_proj" in name or "embed_tokens" in name:
                weight.zero_()
        policy.model.embed_tokens.weight[:, 0] = 1.0
        policy.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids(list(digits)), 0] = 5.0
    return policy


def last_digit(row):
    return row.instruction[-1]


@pytest.fixture(scope="module")
def prompts():
    return generate("last", 60, 1, "train")


def test_prompts_that_are_always_or_never_solved_are_left_out(tokenizer, prompts):
    kept = filter_by_solve_rate(writes_one_of("12", tokenizer), tokenizer, prompts, CONFIG, SAMPLING)
    now_and_then = [row for row in prompts if last_digit(row) in "12"]
    assert {last_digit(row) for row in kept} == {"1", "2"}
    assert len(kept) >= len(now_and_then) // 2


def test_a_start_that_solves_all_or_nothing_is_told_so(tokenizer, prompts):
    with pytest.raises(StageError, match="solves no prompt now and then"):
        filter_by_solve_rate(writes_one_of("1", tokenizer), tokenizer, prompts, CONFIG, SAMPLING)


def test_prompts_that_nothing_verifies_are_kept(tokenizer, prompts):
    open_ones = [Conversation(id=conversation_id(str(n)), messages=ask(f"Say {n}")) for n in range(3)]
    kept = filter_by_solve_rate(writes_one_of("1", tokenizer), tokenizer, open_ones + prompts, CONFIG, SAMPLING)
    assert {row.id for row in kept} == {row.id for row in open_ones}


@pytest.mark.parametrize(("asked", "trained"), [(10, 50), (200, 30)])
def test_no_prompt_that_the_guard_asks_is_trained_on(prompts, asked, trained):
    questions, others = split_guard_prompts(prompts, MeasureConfig(prompts=asked), seed=7)
    assert not {row.instruction for row in questions} & {row.instruction for row in others}
    assert (len(questions), len(others)) == (asked, trained)


def test_prompts_that_leave_none_to_train_on_are_refused(prompts):
    with pytest.raises(ContractError, match="none is left to train on"):
        split_guard_prompts(prompts[:1] * 3, MeasureConfig(prompts=10), seed=7)
