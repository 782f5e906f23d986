import pytest
import torch
from tests.model.small import logits, random_ids, small_model

from qwenops.model.routing import RouterLog, load_balancing_loss, watch_routers
from qwenops.model.sizes import Experts

EXPERTS = Experts(num_experts=8, num_active=2, expert_width=24, shared_width=96)


def test_balance_loss_is_k_at_perfect_balance_and_grows_with_imbalance():
    # Token t prefers experts 2t and 2t + 1: everyone is used equally.
    even = torch.eye(4).repeat_interleave(2, dim=1) * 20
    assert float(load_balancing_loss(even, 2)) == pytest.approx(2.0)
    onesided = torch.zeros(4, 8)
    onesided[:, :2] = 20
    assert float(load_balancing_loss(onesided, 2)) == pytest.approx(8.0, rel=1e-3)


def test_opposite_imbalances_of_two_layers_do_not_cancel():
    left, right = torch.zeros(4, 8), torch.zeros(4, 8)
    left[:, :4], right[:, 4:] = 20, 20
    log = RouterLog(top_k=4, logits={0: left, 1: right})
    assert float(log.balance_loss()) == pytest.approx(8.0, rel=1e-3)
    assert float(load_balancing_loss(torch.cat((left, right)), 4)) == pytest.approx(4.0, rel=1e-3)


def test_watched_routers_report_raw_logits_and_every_choice():
    model, ids = small_model(experts=EXPERTS), random_ids(2, 30)
    with watch_routers(model) as log:
        logits(model, ids)
        logits(model, ids)
    assert [int(load.sum()) for load in log.load.values()] == [2 * 60 * 2] * 2
    # Probabilities would sum to one over experts.
    assert not torch.allclose(log.logits[0].sum(-1), torch.ones(60), atol=1e-2)
    counted = {layer: load.clone() for layer, load in log.load.items()}
    logits(model, ids)
    assert all(torch.equal(counted[layer], log.load[layer]) for layer in counted)


def test_balance_loss_moves_the_router():
    model = small_model(experts=EXPERTS)
    with watch_routers(model) as log:
        model(random_ids(2, 30))
        log.balance_loss().backward()
    assert model.model.layers[0].mlp.gate.weight.grad.abs().max() > 0


def test_load_figures_count_dead_experts():
    log = RouterLog(top_k=1, load={0: torch.tensor([10, 10, 10, 10]), 1: torch.tensor([38, 2, 0, 0])})
    assert log.num_dead() == 2
    assert log.max_over_mean() == pytest.approx(3.8)
    even = RouterLog(top_k=1, load={0: torch.tensor([10, 10])})
    assert even.entropy() == pytest.approx(1.0)
