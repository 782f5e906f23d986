import itertools

import numpy as np
import torch
from tests.training.counting import tiny_model

from qwenops.training.batching import (
    Example,
    pack_batch,
    packed_epochs,
    pad_batch,
    plan_packing,
    shift_labels,
    text_batch,
)
from qwenops.training.loss import IGNORE_INDEX, hidden_states

FIRST = Example(tuple(range(5, 15)), (False,) * 4 + (True,) * 6)
SECOND = Example(tuple(range(30, 50)), (False,) * 12 + (True,) * 8)


def _targets(batch):
    return batch["labels"][batch["labels"] != IGNORE_INDEX].tolist()


def test_text_batch_predicts_each_next_token():
    batch = text_batch(np.arange(10).reshape(2, 5))
    assert batch["input_ids"].tolist() == [[0, 1, 2, 3], [5, 6, 7, 8]]
    assert batch["labels"].tolist() == [[1, 2, 3, 4], [6, 7, 8, 9]]
    assert batch["num_tokens"] == 8


def test_shift_labels_moves_targets_to_the_position_that_predicts_them():
    assert shift_labels(torch.tensor([[1, 2, 3]])).tolist() == [[2, 3, IGNORE_INDEX]]


def test_padded_and_packed_batches_have_the_learned_tokens_as_targets():
    wanted = list(range(9, 15)) + list(range(42, 50))
    assert _targets(pad_batch([FIRST, SECOND], 0)) == wanted
    assert _targets(pack_batch([[FIRST, SECOND]], 40, 0)) == wanted


def test_first_token_of_a_packed_example_is_never_a_target():
    whole = Example((1, 2, 3), (True,) * 3)
    assert _targets(pack_batch([[whole, whole]], 8, 0)) == [2, 3, 2, 3]


def test_packed_examples_do_not_see_each_other():
    model = tiny_model().eval()
    with torch.no_grad():
        padded = pad_batch([FIRST, SECOND], 0)
        alone = hidden_states(model, padded["input_ids"], padded["attention_mask"])
        packed = pack_batch([[FIRST, SECOND], [SECOND, FIRST]], 40, 0)
        together = hidden_states(model, packed["input_ids"], position_ids=packed["position_ids"])
    assert torch.allclose(together[0, :10], alone[0, :10], atol=1e-5)
    assert torch.allclose(together[0, 10:30], alone[1, :20], atol=1e-5)
    assert torch.allclose(together[1, 20:30], alone[0, :10], atol=1e-5)


def test_plan_packing_keeps_every_example_that_fits_once():
    examples = [Example(tuple(range(size)), (True,) * size) for size in (3, 9, 4, 5, 8, 2, 11)]
    rows = plan_packing(examples, 10)
    assert all(sum(len(example.tokens) for example in row) <= 10 for row in rows)
    assert sorted(len(example.tokens) for row in rows for example in row) == [2, 3, 4, 5, 8, 9]


def test_packed_epochs_started_in_the_middle_continue_the_same_stream():
    examples = [Example(tuple(range(start, start + 6)), (True,) * 6) for start in range(9)]
    arguments = {"length": 12, "rows_per_batch": 2, "pad_id": 0, "seed": 3}
    whole = list(itertools.islice(packed_epochs(examples, **arguments), 7))
    rest = list(itertools.islice(packed_epochs(examples, **arguments, start_step=4), 3))
    for one, two in zip(whole[4:], rest, strict=True):
        assert torch.equal(one["input_ids"], two["input_ids"])
    assert not torch.equal(whole[0]["input_ids"], whole[1]["input_ids"])
