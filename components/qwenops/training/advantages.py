"""From the score of a sampled response to the advantages and returns that PPO learns from.

Everything here is arithmetic on log-probabilities, values and rewards, so that each formula is tested on
numbers; the clipped losses are in `loss`, the forward passes with the objectives that call it.
"""

import torch
from torch import Tensor


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
    rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016).

    Args:
        rewards: [B, T] reward per token.
        values: [B, T] value before each token.
        mask: [B, T] 1 at response tokens.
        discount: gamma.
        gae_lambda: lambda.

    Returns:
        Advantages and returns (advantage + value), both [B, T] and zero outside the response.
    """
    mask = mask.to(values.dtype)
    advantages, running = torch.zeros_like(values), torch.zeros_like(values[:, 0])
    for place in reversed(range(values.shape[1])):
        following = values[:, place + 1] * mask[:, place + 1] if place + 1 < values.shape[1] else 0.0
        error = rewards[:, place] + discount * following - values[:, place]
        running = (error + discount * gae_lambda * running) * mask[:, place]
        advantages[:, place] = running
    return advantages, (advantages + values) * mask


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` [B, T] over the places where `mask` is 1."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


class RunningMean:
    """Mean of all rewards seen so far; PPO subtracts it (the Qwen report normalises by the running mean)."""

    def __init__(self, total: float = 0.0, count: int = 0) -> None:
        self.total, self.count = total, count

    @property
    def value(self) -> float:
        """The mean, 0 before the first reward."""
        return self.total / self.count if self.count else 0.0

    def subtract_from(self, rewards: Tensor) -> Tensor:
        """Take `rewards` [B] into the mean and return them less the mean."""
        self.total += float(rewards.sum())
        self.count += rewards.numel()
        return rewards - self.value
