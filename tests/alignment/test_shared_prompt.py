"""A row that holds a prompt and both answers gives the hidden states of the two rows it stands for."""

import pytest
import torch
from tests.alignment.conftest import small_model

from qwenops.alignment.examples import Pair, pair_batch
from qwenops.alignment.objectives import response_log_probs
from qwenops.alignment.shared_prompt import MOST_TOKENS, hidden_states_at, share_prompts, shared_length
from qwenops.training.batching import Example

PROMPT = [9, 8, 7, 6, 5, 4, 3, 2, 11, 12]
SIDES = [
    ([*PROMPT, 20, 21, 1], [*PROMPT, 30, 1]),
    ([*PROMPT[:6], 40, 1], [*PROMPT[:6], 40, 41, 42, 1]),  # the answers begin alike
    ([*PROMPT, 50, 1], [*PROMPT, 50, 1]),  # they are alike
    ([*PROMPT, 60], [*PROMPT, 60, 61, 62, 1]),  # one begins the other
]


def _pairs(sides=SIDES):
    return [Pair(*(Example(row, [False] * 6 + [True] * (len(row) - 6)) for row in pair)) for pair in sides]


@pytest.mark.parametrize("implementation", ["sdpa", "eager", "sdpa_under_autocast"])
def test_hidden_states_are_those_of_each_side_alone(implementation):
    model = small_model()
    model.set_attn_implementation(implementation)
    batch = pair_batch(_pairs(), 0)
    assert batch["shared_ids"].numel() < batch["input_ids"].numel() * 5 / 6
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        found = hidden_states_at(model, batch, real)
        alone = [
            model.model(input_ids=torch.tensor([row])).last_hidden_state[0]
            for side in (0, 1)
            for row in (pair[side] for pair in SIDES)
        ]
    torch.testing.assert_close(found, torch.cat(alone), atol=2e-5, rtol=1e-4)


def test_an_answer_does_not_move_the_other():
    model, longer = small_model(), [([*PROMPT, 20, 21, 22, 23, 24, 1], [*PROMPT, 30, 1])]
    with torch.no_grad():
        sums = [response_log_probs(model, pair_batch(_pairs(sides), 0))[0] for sides in (SIDES[:1], longer)]
    torch.testing.assert_close(sums[0][1], sums[1][1])


def test_rows_are_shared_where_it_saves_tokens_and_the_mask_is_small():
    assert share_prompts([([1, 2, 3], [4, 5, 6])], 0) == {}
    long = list(range(MOST_TOKENS))
    assert share_prompts([([*long, 1], [*long, 2])], 0) == {}
    assert share_prompts([([*long[:-2], 1], [*long[:-2], 2])], 0)["shared_ids"].shape == (1, MOST_TOKENS)


@pytest.mark.parametrize(
    ("pair", "length"), [(([1, 2, 3], [1, 2, 4]), 2), (([1, 2], [1, 2]), 1), (([1], [1, 2]), 0), (([3], [4]), 0)]
)
def test_each_side_keeps_its_last_token(pair, length):
    assert shared_length(*pair) == length
