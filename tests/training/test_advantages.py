import math

import pytest
import torch

from qwenops.training.advantages import RunningMean, generalized_advantages, masked_mean, token_rewards
from qwenops.training.loss import dpo_loss, ppo_policy_loss, ppo_value_loss, reward_pair_loss


def test_dpo_of_the_reference_itself_is_ln_two_with_no_reward():
    chosen, rejected = torch.tensor([-3.0, -9.0]), torch.tensor([-4.0, -2.0])
    loss, chosen_reward, rejected_reward = dpo_loss(chosen, rejected, chosen, rejected, beta=0.3)
    assert loss.tolist() == pytest.approx([math.log(2)] * 2)
    assert chosen_reward.tolist() == rejected_reward.tolist() == [0.0, 0.0]


def test_dpo_gradient_raises_chosen_and_lowers_rejected():
    chosen, rejected = torch.tensor([-3.0], requires_grad=True), torch.tensor([-4.0], requires_grad=True)
    dpo_loss(chosen, rejected, chosen.detach(), rejected.detach(), beta=0.3)[0].sum().backward()
    assert chosen.grad.item() == pytest.approx(-0.15)
    assert rejected.grad.item() == pytest.approx(0.15)


def test_dpo_with_swapped_labels_mirrors_the_loss():
    a, b, ra, rb = (torch.tensor([value]) for value in (-1.0, -2.0, -1.5, -1.0))
    forward, good, bad = dpo_loss(a, b, ra, rb, 0.5)
    backward, _, _ = dpo_loss(b, a, rb, ra, 0.5)
    assert (backward - forward).item() == pytest.approx((good - bad).item())


def test_reward_pair_loss_is_ln_two_at_a_tie_and_falls_with_the_margin():
    tie = reward_pair_loss(torch.tensor([1.0]), torch.tensor([1.0]))
    assert tie.item() == pytest.approx(math.log(2))
    assert reward_pair_loss(torch.tensor([3.0]), torch.tensor([1.0])) < tie


def test_token_rewards_put_the_penalty_on_every_token_and_the_score_on_the_last():
    mask = torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    rewards = token_rewards(torch.tensor([2.0]), torch.full((1, 4), -1.0), torch.full((1, 4), -2.0), mask, 0.04)
    torch.testing.assert_close(rewards, torch.tensor([[0.0, -0.04, 1.96, 0.0]]))


def test_advantages_follow_the_recursion_on_a_worked_example():
    rewards, values = torch.tensor([[0.0, 0.0, 1.0, 9.0]]), torch.tensor([[0.5, 0.4, 0.2, 9.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    advantages, returns = generalized_advantages(rewards, values, mask, discount=1.0, gae_lambda=0.95)
    last = 1.0 - 0.2
    middle = (0.2 - 0.4) + 0.95 * last
    first = (0.4 - 0.5) + 0.95 * middle
    torch.testing.assert_close(advantages, torch.tensor([[first, middle, last, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[first + 0.5, middle + 0.4, 1.0, 0.0]]))


def test_policy_loss_stops_rewarding_a_ratio_beyond_the_clip():
    doubled, old = torch.full((1, 1), math.log(2.0)), torch.zeros(1, 1)
    assert ppo_policy_loss(doubled, old, torch.ones(1, 1), 0.2).item() == pytest.approx(-1.2)
    assert ppo_policy_loss(doubled, old, -torch.ones(1, 1), 0.2).item() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("value", "old", "target", "expected"),
    [(1.0, 1.0, 2.0, 0.5), (1.5, 1.0, 2.0, 0.5 * 0.85**2), (3.0, 1.0, 2.0, 0.5), (1.1, 1.0, 2.0, 0.5 * 0.9**2)],
)
def test_value_loss_takes_the_worse_of_free_and_clipped(value, old, target, expected):
    loss = ppo_value_loss(*(torch.tensor([[x]]) for x in (value, old, target)), 0.15)
    assert loss.item() == pytest.approx(expected)


def test_running_mean_subtracts_all_that_was_seen():
    mean = RunningMean()
    assert mean.subtract_from(torch.tensor([1.0, 3.0])).tolist() == [-1.0, 1.0]
    assert mean.subtract_from(torch.tensor([5.0, 7.0])).tolist() == [1.0, 3.0]
    assert mean.value == 4.0


def test_masked_mean_ignores_what_is_masked():
    assert masked_mean(torch.tensor([[1.0, 3.0, 99.0]]), torch.tensor([[1.0, 1.0, 0.0]])).item() == 2.0
