import math

import pytest
import torch
import torch.nn.functional as F
from tests.training.counting import VOCABULARY, peak_bytes, tiny_model

from qwenops.training.loss import (
    IGNORE_INDEX,
    chunked_cross_entropy,
    dpo_loss,
    hidden_states,
    output_weight,
    ppo_policy_loss,
    ppo_value_loss,
    reward_pair_loss,
    token_log_probs,
)
from qwenops.training.objective import language_modelling


def _inputs(tokens: int = 37, width: int = 8):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator, requires_grad=True)
    weight = torch.randn(VOCABULARY, width, generator=generator, requires_grad=True)
    labels = torch.randint(VOCABULARY, (tokens,), generator=generator)
    labels[::5] = IGNORE_INDEX
    weights = torch.rand(tokens, generator=generator)
    return hidden, weight, labels, weights


@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_chunked_cross_entropy_equals_torch_in_value_and_gradients(chunk):
    hidden, weight, labels, _ = _inputs()
    expected = F.cross_entropy(hidden @ weight.T, labels)
    wanted = torch.autograd.grad(expected, (hidden, weight))
    found = chunked_cross_entropy(hidden, weight, labels, chunk=chunk)
    got = torch.autograd.grad(found * 3, (hidden, weight))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for a, b in zip(got, wanted, strict=True):
        assert torch.allclose(a, 3 * b, atol=1e-6)


def test_chunked_cross_entropy_with_weights_is_the_weighted_mean():
    hidden, weight, labels, weights = _inputs()
    each = F.cross_entropy(hidden @ weight.T, labels, reduction="none")
    keep = labels != IGNORE_INDEX
    expected = (each * weights)[keep].sum() / weights[keep].sum()
    found = chunked_cross_entropy(hidden, weight, labels, weights, chunk=5)
    wanted = torch.autograd.grad(expected, (hidden, weight))
    got = torch.autograd.grad(found, (hidden, weight))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(got, wanted, strict=True))


def test_chunked_cross_entropy_without_targets_is_zero_and_has_no_gradient():
    hidden, weight, labels, _ = _inputs()
    loss = chunked_cross_entropy(hidden, weight, torch.full_like(labels, IGNORE_INDEX))
    loss.backward()
    assert loss.item() == 0
    assert not hidden.grad.any()


def test_token_log_probs_equal_those_from_full_logits_and_are_differentiable():
    model = tiny_model(tied=False)
    ids = torch.randint(VOCABULARY, (3, 11), generator=torch.Generator().manual_seed(1))
    labels = torch.roll(ids, -1, dims=1)
    labels[:, -1] = IGNORE_INDEX
    labels[1, :4] = IGNORE_INDEX
    found = token_log_probs(hidden_states(model, ids), output_weight(model), labels)
    log_probs = model(ids).logits.log_softmax(-1)
    picked = log_probs.gather(2, labels.clamp_min(0)[..., None])[..., 0] * (labels != IGNORE_INDEX)
    assert torch.allclose(found, picked, atol=1e-5)
    parameters = list(model.parameters())
    got = torch.autograd.grad(found.sum(), parameters, retain_graph=True)
    wanted = torch.autograd.grad(picked.sum(), parameters)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(got, wanted, strict=True))


def test_token_log_probs_in_chunks_equal_those_in_one_piece():
    model = tiny_model()
    ids = torch.randint(VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(2))
    hidden = hidden_states(model, ids)
    pieces = token_log_probs(hidden, output_weight(model), ids, chunk=4)
    assert torch.allclose(pieces, token_log_probs(hidden, output_weight(model), ids), atol=1e-6)


def test_dpo_loss_of_the_reference_itself_is_ln_2_with_zero_rewards():
    chosen, rejected = torch.tensor([-3.0, -5.0]), torch.tensor([-4.0, -1.0])
    loss, plus, minus = dpo_loss(chosen, rejected, chosen, rejected, beta=0.1)
    assert loss.tolist() == pytest.approx([math.log(2)] * 2)
    assert not plus.any()
    assert not minus.any()


def test_dpo_loss_gradient_raises_the_chosen_and_lowers_the_rejected():
    chosen, rejected = torch.tensor([-3.0], requires_grad=True), torch.tensor([-4.0], requires_grad=True)
    loss, _, _ = dpo_loss(chosen, rejected, torch.tensor([-3.0]), torch.tensor([-4.0]), beta=0.1)
    loss.sum().backward()
    assert chosen.grad.item() < 0 < rejected.grad.item()


def test_dpo_loss_with_swapped_labels_is_mirrored():
    policy, reference = (torch.tensor([-3.0]), torch.tensor([-4.5])), (torch.tensor([-3.5]), torch.tensor([-4.0]))
    one, plus, minus = dpo_loss(*policy, *reference, beta=0.5)
    two, _, _ = dpo_loss(*reversed(policy), *reversed(reference), beta=0.5)
    assert (two - one).item() == pytest.approx((plus - minus).item(), rel=1e-5)


def test_reward_pair_loss_falls_with_the_margin():
    loss = reward_pair_loss(torch.tensor([0.0, 1.0, 3.0]), torch.zeros(3))
    assert loss[0].item() == pytest.approx(math.log(2))
    assert loss[0] > loss[1] > loss[2]


def test_ppo_policy_loss_stops_rewarding_a_ratio_beyond_the_clip():
    old, advantage = torch.zeros(2), torch.tensor([1.0, -1.0])
    loss = ppo_policy_loss(torch.tensor([2.0, -2.0]), old, advantage, clip=0.2)
    assert loss.tolist() == pytest.approx([-1.2, 0.8])


def test_ppo_value_loss_takes_the_larger_of_plain_and_clipped_error():
    loss = ppo_value_loss(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([1.0]), clip=0.15)
    assert loss.item() == pytest.approx(0.5 * 0.85**2)


@pytest.mark.parametrize("chunk", [3, 1024])
def test_z_loss_adds_the_squared_log_partition_in_value_and_gradients(chunk):
    hidden, weight, labels, weights = _inputs()
    logits, keep = hidden @ weight.T, labels != IGNORE_INDEX
    each = F.cross_entropy(logits, labels, reduction="none") + 0.01 * logits.logsumexp(-1).square()
    expected = (each * weights)[keep].sum() / weights[keep].sum()
    wanted = torch.autograd.grad(expected, (hidden, weight))
    found = chunked_cross_entropy(hidden, weight, labels, weights, chunk=chunk, z_loss=0.01)
    got = torch.autograd.grad(found, (hidden, weight))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(got, wanted, strict=True))


def test_loss_by_domain_is_the_mean_over_the_domains_own_targets():
    model = tiny_model()
    ids = torch.randint(VOCABULARY, (4, 9), generator=torch.Generator().manual_seed(3))
    labels = torch.roll(ids, -1, dims=1)
    labels[:, -1], labels[2, :5] = IGNORE_INDEX, IGNORE_INDEX
    names = ("prose", "code", "absent")
    batch = {"input_ids": ids, "labels": labels, "domains": torch.tensor([0, 1, 1, 0]), "domain_names": names}
    with torch.no_grad():
        loss, figures = language_modelling(model, batch)
        each = F.cross_entropy(model(ids).logits.flatten(0, 1), labels.flatten(), reduction="none").view(4, 9)
    assert set(figures) == {"loss.prose", "loss.code"}
    for name, rows in (("prose", [0, 3]), ("code", [1, 2])):
        total, count = figures[f"loss.{name}"]
        keep = labels[rows] != IGNORE_INDEX
        assert count == int(keep.sum())
        assert total / count == pytest.approx(each[rows][keep].mean().item(), rel=1e-5)
    whole = sum(total for total, _ in figures.values()) / sum(count for _, count in figures.values())
    assert whole == pytest.approx(loss.item(), rel=1e-5)


def test_peak_memory_of_the_chunked_loss_is_an_eighth_of_materialised_logits():
    # 4,096 tokens and a slice of 8,192 rows: the ratio only grows with the length, since a chunk stays a chunk.
    tokens, rows, width = 4096, 8192, 32
    generator = torch.Generator().manual_seed(4)
    hidden = torch.randn(tokens, width, generator=generator, requires_grad=True)
    weight = torch.randn(rows, width, generator=generator, requires_grad=True)
    labels = torch.randint(rows, (tokens,), generator=generator)

    def materialised():
        F.cross_entropy(hidden @ weight.T, labels).backward()

    def chunked():
        chunked_cross_entropy(hidden, weight, labels, chunk=128).backward()

    peaks, gradients = [], []
    for work in (materialised, chunked):
        hidden.grad = weight.grad = None
        peaks.append(peak_bytes(work))
        gradients.append((hidden.grad, weight.grad))
    assert peaks[0] > 2 * 4 * tokens * rows
    assert peaks[1] < peaks[0] / 8
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))
