import copy

import pytest
import torch
from tests.training.counting import tiny_model

from qwenops.training.config import TrainingConfig
from qwenops.training.optimizer import Muon, MuonWithAdamW, build_optimizer


def test_adamw_decays_matrices_and_spares_vectors():
    optimizer = build_optimizer(tiny_model(), TrainingConfig(weight_decay=0.1))
    decayed, spared = optimizer.param_groups
    assert {p.ndim for p in decayed["params"]} == {2}
    assert decayed["weight_decay"] == 0.1
    assert {p.ndim for p in spared["params"]} == {1}
    assert spared["weight_decay"] == 0.0


def test_muon_takes_the_layers_matrices_and_leaves_embeddings_to_adamw():
    model = tiny_model(tied=False)
    optimizer = build_optimizer(model, TrainingConfig(optimizer="muon"))
    assert isinstance(optimizer, MuonWithAdamW)
    muon = {id(p) for p in optimizer.param_groups[0]["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in muon}
    assert len(names) == 2 * 7
    assert not any("embed" in name or "lm_head" in name or "norm" in name for name in names)
    every = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(every) == sorted(id(p) for p in model.parameters())


def test_frozen_parameters_are_not_optimised():
    model = tiny_model()
    for parameter in model.model.layers[0].parameters():
        parameter.requires_grad_(False)
    for kind in ("adamw", "muon"):
        optimizer = build_optimizer(model, TrainingConfig(optimizer=kind))
        assert all(p.requires_grad for group in optimizer.param_groups for p in group["params"])


def test_muon_restored_from_its_state_makes_the_same_step():
    first, second = tiny_model(), tiny_model()
    config = TrainingConfig(optimizer="muon", learning_rate=1e-2)
    one, two = build_optimizer(first, config), build_optimizer(second, config)
    gradients = [torch.randn_like(p) for p in first.parameters()]

    def step(model, optimizer):
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()

    step(first, one)
    second.load_state_dict(first.state_dict())
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    step(first, one)
    step(second, two)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("shape", [(12, 40), (40, 12)])
def test_muon_on_a_processor_without_bf16_follows_the_iteration_in_float64(monkeypatch, shape):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    weight, plain = (torch.nn.Parameter(torch.zeros(shape)) for _ in range(2))
    gradients = [torch.randn(shape) for _ in range(3)]
    for parameter, optimizer in (
        (weight, Muon([weight], lr=1.0, weight_decay=0.0, nesterov=False)),
        (plain, torch.optim.Muon([plain], lr=1.0, weight_decay=0.0, nesterov=False)),
    ):
        for gradient in gradients:
            parameter.grad = gradient.clone()
            optimizer.step()
    expected, momentum = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    for gradient in gradients:
        momentum = 0.95 * momentum + 0.05 * gradient.double()
        left, values, right = torch.linalg.svd(momentum / momentum.norm(), full_matrices=False)
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        expected -= max(1.0, shape[0] / shape[1]) ** 0.5 * (left * values) @ right
    torch.testing.assert_close(weight.detach().double(), expected, rtol=0, atol=1e-3)
    # bfloat16 keeps 8 bits: torch's own iteration is near, and farther from the reference.
    torch.testing.assert_close(plain.detach().double(), expected, rtol=0, atol=0.3)


def test_muon_in_batches_updates_as_torchs_own_does_one_matrix_at_a_time():
    shapes = [(24, 16), (16, 24), (16, 16), (24, 16), (8, 16), (24, 16)]
    ours, theirs = ([torch.nn.Parameter(torch.zeros(shape)) for shape in shapes] for _ in range(2))
    optimizers = (
        Muon(ours, lr=0.1, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.1, weight_decay=0.1, momentum=0.95, nesterov=True),
    )
    for step in range(3):
        for place, pair in enumerate(zip(ours, theirs, strict=True)):
            gradient = torch.randn(shapes[place])
            for parameter in pair:
                # One matrix has no gradient in the first step, as an expert that no token chose.
                parameter.grad = None if step == place == 0 else gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    # Both in bfloat16 where the processor has it: products of a batch may round otherwise than one alone.
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-3)


def test_muon_takes_matrices_that_fill_a_batch_alone(monkeypatch):
    shapes = [(12, 8)] * 5
    whole, alone = ([torch.nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))
    for one, other in zip(whole, alone, strict=True):
        one.grad = torch.randn(12, 8)
        other.grad = one.grad.clone()
    Muon(whole, lr=0.1, weight_decay=0.0).step()
    monkeypatch.setattr("qwenops.training.optimizer._BATCH_ENTRIES", 12 * 8 * 2)
    Muon(alone, lr=0.1, weight_decay=0.0).step()
    for one, other in zip(whole, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-3)
