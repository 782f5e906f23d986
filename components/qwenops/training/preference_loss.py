"""Losses that learn from preferences and rewards: DPO, the reward model's pair loss, PPO.

Everything here is arithmetic on log-probabilities, values and rewards, so that each formula is tested on
numbers; the forward passes live with the objectives that call it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class DpoTerms:
    """What one DPO batch says.

    Attributes:
        loss: Scalar, `-mean log sigmoid(margin)`.
        chosen_reward: [B] `beta (log pi - log pi_ref)` of the chosen responses, detached.
        rejected_reward: [B] same of the rejected ones.
    """

    loss: Tensor
    chosen_reward: Tensor
    rejected_reward: Tensor

    @property
    def margin(self) -> Tensor:
        """[B] implicit reward of chosen minus rejected."""
        return self.chosen_reward - self.rejected_reward

    @property
    def accuracy(self) -> Tensor:
        """Scalar share of pairs whose margin is above zero."""
        return (self.margin > 0).float().mean()


def dpo_loss(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> DpoTerms:
    """Direct preference optimisation on summed response log-probabilities (Rafailov et al. 2023, equation 7).

    Args:
        chosen: [B] log-probability of the chosen response under the policy, summed over its tokens.
        rejected: [B] same for the rejected response.
        reference_chosen: [B] chosen under the reference policy.
        reference_rejected: [B] rejected under the reference policy.
        beta: Strength of the pull towards the reference.
    """
    for_chosen, for_rejected = beta * (chosen - reference_chosen), beta * (rejected - reference_rejected)
    loss = -functional.logsigmoid(for_chosen - for_rejected).mean()
    return DpoTerms(loss, for_chosen.detach(), for_rejected.detach())


def reward_pair_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Bradley-Terry loss of a reward model: `-mean log sigmoid(r_chosen - r_rejected)`, scores [B]."""
    return -functional.logsigmoid(chosen - rejected).mean()


def token_rewards(
    scores: Tensor, log_probs: Tensor, reference_log_probs: Tensor, mask: Tensor, kl_coefficient: float
) -> Tensor:
    """Rewards of PPO per response token: the KL penalty on every token, the score on the last one.

    Args:
        scores: [B] normalised score of the whole response.
        log_probs: [B, T] log-probabilities of the sampled tokens under the sampling policy.
        reference_log_probs: [B, T] same under the reference.
        mask: [B, T] 1 at response tokens, contiguous.
        kl_coefficient: Weight of the penalty.

    Returns:
        [B, T], zero outside the response.
    """
    rewards = -kl_coefficient * (log_probs - reference_log_probs) * mask
    last = last_position(mask)
    return rewards.scatter_add(1, last[:, None], (scores * mask.any(1))[:, None].to(rewards.dtype))


def last_position(mask: Tensor) -> Tensor:
    """[B] index of the last 1 of each row of `mask` [B, T]; 0 for an empty row."""
    places = torch.arange(mask.shape[1], device=mask.device)
    return (mask.bool() * places).amax(1)


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, trace: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016).

    Args:
        rewards: [B, T] reward per token.
        values: [B, T] value before each token.
        mask: [B, T] 1 at response tokens.
        discount: gamma.
        trace: lambda.

    Returns:
        Advantages and returns (advantage + value), both [B, T] and zero outside the response.
    """
    mask = mask.to(values.dtype)
    advantages, running = torch.zeros_like(values), torch.zeros_like(values[:, 0])
    for place in reversed(range(values.shape[1])):
        following = values[:, place + 1] * mask[:, place + 1] if place + 1 < values.shape[1] else 0.0
        error = rewards[:, place] + discount * following - values[:, place]
        running = (error + discount * trace * running) * mask[:, place]
        advantages[:, place] = running
    return advantages, (advantages + values) * mask


def clipped_policy_loss(log_probs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> Tensor:
    """PPO's clipped surrogate over the response tokens; all [B, T], returns a scalar to minimise."""
    ratio = ((log_probs - old) * mask).exp()
    worst = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -(worst * mask).sum() / mask.sum().clamp(min=1)


def clipped_value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Value loss `1/2 max((V - R)^2, (clip(V, V_old +- c) - R)^2)` over the response tokens; all [B, T]."""
    near = old + (values - old).clamp(-clip, clip)
    worst = torch.maximum((values - returns) ** 2, (near - returns) ** 2)
    return 0.5 * (worst * mask).sum() / mask.sum().clamp(min=1)


class RunningMean:
    """Mean of all rewards seen so far; PPO subtracts it (the Qwen report normalises by the running mean)."""

    def __init__(self, total: float = 0.0, count: int = 0) -> None:
        self.total, self.count = total, count

    @property
    def value(self) -> float:
        """The mean, 0 before the first reward."""
        return self.total / self.count if self.count else 0.0

    def centre(self, rewards: Tensor) -> Tensor:
        """Take `rewards` [B] into the mean and return them less the mean."""
        self.total += float(rewards.sum())
        self.count += rewards.numel()
        return rewards - self.value
