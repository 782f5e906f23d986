"""Settings of a loop reach models that hold a language model, or two: the reward model and both models of PPO."""

import pytest
import torch
from tests.alignment.test_step_gradient import CASES, LOOP, rows_of

from qwenops.training.fit import fit
from qwenops.training.recompute import decoder_layers


def _gradients(name, **changes):
    case = CASES[name]
    model, batches = case.model(), case.batch(rows_of(case, 3, 5))
    fit(model, case.objective, lambda _: iter([batches]), LOOP.model_copy(update=changes))
    return {key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None}, model


@pytest.mark.parametrize("policy", ["matmuls", "layers"])
@pytest.mark.parametrize(("name", "layers"), [("reward", 2), ("ppo", 4)])
def test_recomputation_gives_bitwise_the_same_gradients(name, layers, policy):
    expected, _ = _gradients(name)
    found, model = _gradients(name, recompute=policy)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert sum("forward" in layer.__dict__ for layer in decoder_layers(model)) == layers


@pytest.mark.parametrize("name", ["reward", "ppo"])
def test_attention_by_document_is_set_in_every_language_model_inside(name):
    expected, _ = _gradients(name)
    found, _ = _gradients(name, attention="by_document")
    assert all(torch.allclose(found[key], expected[key], atol=1e-6) for key in expected)
