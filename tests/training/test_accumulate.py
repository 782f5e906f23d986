"""Micro-batches, recomputation and compiled layers change memory and time, not the result."""

import pytest
import torch
from tests.training.counting import number_batches, number_rows, tiny_model

from qwenops.errors import RecipeError
from qwenops.training.accumulate import split_by_tokens
from qwenops.training.batching import Example, pad_batch, text_batch
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import compile_layers, fit
from qwenops.training.objective import language_modelling
from qwenops.training.recompute import recompute_layers

CONFIG = TrainingConfig(steps=1, batch_tokens=96, precision="fp32", warmup_steps=0)


def _gradients(model):
    return [parameter.grad.clone() for parameter in model.parameters()]


def _step(batch, **changes):
    model = tiny_model()
    result = fit(model, language_modelling, lambda _: iter([batch]), CONFIG.model_copy(update=changes))
    return result, _gradients(model)


@pytest.mark.parametrize("most_tokens", [1, 16, 40, 96])
def test_micro_batches_give_the_loss_and_gradient_of_the_whole(most_tokens):
    lengths = (3, 9, 16, 5, 12)
    examples = [Example(tuple(range(n)), (False,) * 2 + (True,) * (n - 2)) for n in lengths]
    batch = pad_batch(examples, 0)
    whole, expected = _step(batch)
    split, found = _step(batch, micro_batch_tokens=most_tokens)
    assert split.tokens == whole.tokens == sum(lengths)
    assert split.final_loss == pytest.approx(whole.final_loss, rel=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(expected, found, strict=True))


def test_split_keeps_every_row_and_target_once():
    batch = text_batch(number_rows(0, rows=5))
    pieces = split_by_tokens(batch, 32)
    assert [len(piece["input_ids"]) for piece in pieces] == [2, 2, 1]
    assert torch.equal(torch.cat([piece["labels"] for piece in pieces]), batch["labels"])
    assert sum(piece["num_tokens"] for piece in pieces) == batch["num_tokens"]


def test_batch_that_cannot_be_split_is_refused():
    with pytest.raises(RecipeError, match="cannot be split"):
        split_by_tokens({"chosen_input_ids": torch.zeros(2, 3)}, 3)


@pytest.mark.parametrize("policy", ["matmuls", "layers"])
def test_recomputation_gives_bitwise_the_same_gradients_and_keeps_names(policy):
    batch = text_batch(number_rows(0))
    _, expected = _step(batch)
    result, found = _step(batch, recompute=policy)
    assert result.steps == 1
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    model = tiny_model()
    names = set(model.state_dict())
    recompute_layers(model, policy)
    assert set(model.state_dict()) == names


def test_recomputation_undone_leaves_the_layers_as_they_were():
    model = tiny_model()
    recompute_layers(model, "layers")
    recompute_layers(model, "none")
    assert all("forward" not in layer.__dict__ for layer in model.model.layers)


@pytest.mark.integration
def test_compiled_layers_train_alike_with_few_graphs_for_many_lengths():
    torch._dynamo.reset()
    plain, compiled = tiny_model(), tiny_model()
    compile_layers(compiled)
    torch._dynamo.utils.counters.clear()
    for length in (8, 12, 16, 24, 31, 40):
        batch = text_batch(number_rows(0, length=length))
        losses = []
        for model in (plain, compiled):
            loss, _ = language_modelling(model, batch)
            loss.backward()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-5)
    # A loop compiles through its configuration.
    fit(tiny_model(), language_modelling, number_batches, CONFIG.model_copy(update={"compile": "layers"}))
