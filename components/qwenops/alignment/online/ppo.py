"""PPO as Qwen1 ran it: policy, value, reference and reward model, the value model warmed up alone first.

Every response token is rewarded by the negative KL penalty, the last one by the reward less its running mean too. A
likelihood term on demonstrations, when configured, holds what SFT taught (the "pre-training gradient").
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qwenops.alignment.examples import encode_row
from qwenops.alignment.online.config import OnlineConfig, PpoConfig
from qwenops.alignment.online.rollouts import Rollout
from qwenops.alignment.reward_model import RewardModel
from qwenops.contracts.conversation import Conversation
from qwenops.training.accumulate import split_by_tokens
from qwenops.training.advantages import RunningMean, generalized_advantages, masked_mean, token_rewards
from qwenops.training.batching import Example, pad_batch
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import fit
from qwenops.training.loss import (
    chunked_cross_entropy,
    hidden_states,
    output_weight,
    ppo_policy_loss,
    ppo_value_loss,
    token_log_probs,
)
from qwenops.training.precision import autocast
from qwenops.training.terms import IGNORE_INDEX, Batch, Counts, MetricSums, Objective, count_targets

_NEVER = 1e30


class ActorCritic(nn.Module):
    """The two trained models of PPO side by side; the value model is a reward model read at every position."""

    def __init__(self, policy: PreTrainedModel, value: RewardModel) -> None:
        super().__init__()
        self.policy, self.value = policy, value

    def values(self, batch: Batch) -> Tensor:
        """Value before each position's next token, [rows, length]."""
        hidden = hidden_states(self.value.policy, batch["input_ids"], batch["attention_mask"])
        return self.value.head(hidden).squeeze(-1).float()


class PpoLearner:
    """Learns from rollouts by PPO; see the module.

    Args:
        policy: Trained in place.
        value: Value model, of its own memory; usually starts as the reward model.
        config: The stage's config.
        demonstrations: Tokenized text of the likelihood term; may be empty when its coefficient is 0.
        pad_id: Fills the rows.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        value: RewardModel,
        config: OnlineConfig,
        demonstrations: Sequence[Example],
        pad_id: int,
    ) -> None:
        self.policy, self.learning_rate_scale = policy, 1.0
        self._models = ActorCritic(policy, value)
        self._config, self._ppo, self._pad_id = config, config.ppo, pad_id
        self._demonstrations = demonstrations
        self._mean, self._head = RunningMean(), value.head.weight
        ratio = self._ppo.value_learning_rate / self._ppo.policy_learning_rate
        settings = config.training
        self._optimizer = torch.optim.AdamW(
            [
                {"params": list(policy.parameters()), "lr_scale": 1.0},
                {"params": list(value.parameters()), "lr_scale": ratio},
            ],
            lr=self._ppo.policy_learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
        )

    @property
    def steps(self) -> int:
        """Optimizer steps so far, over all episodes; a step's forward passes and a skipped step do not count."""
        state = self._optimizer.state.get(self._head)
        return int(state["step"]) if state else 0

    def update(self, rollouts: Sequence[Rollout], seed: int) -> dict[str, float]:
        """See `Learner.update`."""
        batches = self._batches(rollouts) * self._ppo.passes
        loop = self._loop(len(batches))
        result = fit(
            self._models,
            ppo_objective(self._ppo, lambda: self._warms_up),
            lambda _: self._cut(batches, seed),
            loop,
            optimizer=self._optimizer,
            seed=seed,
        )
        self._models.eval()
        return {"loss": result.final_loss, "tokens": float(result.tokens), "reward_mean": self._mean.value}

    def state_dict(self) -> dict[str, Any]:
        """See `Learner.state_dict`."""
        return {
            "models": self._models.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "rate": self.learning_rate_scale,
            "mean": (self._mean.total, self._mean.count),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Learner.load_state_dict`."""
        self._models.load_state_dict(state["models"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.learning_rate_scale = state["rate"]
        self._mean = RunningMean(*state["mean"])

    def _loop(self, steps: int) -> TrainingConfig:
        rate = self._ppo.policy_learning_rate * self.learning_rate_scale
        return self._config.training.model_copy(
            update={
                "steps": steps,
                "learning_rate": rate,
                "final_learning_rate": rate,
                "schedule": "constant",
                "warmup_steps": 0,
                "spike_ratio": _NEVER,
            }
        )

    @torch.no_grad()
    def _batches(self, rollouts: Sequence[Rollout]) -> list[Batch]:
        """The episode's rollouts as padded batches with old figures, advantages and returns."""
        self._models.eval()
        rewards = self._mean.subtract_from(torch.tensor([item.reward for item in rollouts]))
        size = 2 * self._config.pairs_per_step
        return [
            self._batch(rollouts[start : start + size], rewards[start : start + size])
            for start in range(0, len(rollouts), size)
        ]

    def _batch(self, rollouts: Sequence[Rollout], rewards: Tensor) -> Batch:
        batch = pad_batch([item.example for item in rollouts], self._pad_id)
        mask = batch["labels"] != IGNORE_INDEX
        old, reference = (
            torch.zeros(mask.shape).masked_scatter(mask, torch.cat(parts))
            for parts in ([item.log_probs for item in rollouts], [item.reference for item in rollouts])
        )
        device = next(self._models.parameters()).device
        with autocast(self._models, self._config.training.precision):
            values = self._models.values({k: v.to(device) for k, v in batch.items() if isinstance(v, Tensor)})
        values = values.cpu() * mask
        per_token = token_rewards(rewards, old, reference, mask.float(), self._ppo.kl_coefficient)
        advantages, returns = generalized_advantages(
            per_token, values, mask, discount=self._ppo.discount, gae_lambda=self._ppo.trace
        )
        return batch | {"old": old, "old_values": values, "advantages": advantages, "returns": returns}

    @property
    def _warms_up(self) -> bool:
        return self.steps < self._ppo.value_warmup_steps

    def _cut(self, batches: Sequence[Batch], seed: int) -> Iterator[list[Batch]]:
        """The micro-batches of every step, made when the step begins: text joins once the policy learns."""
        most = self._config.training.micro_batch_tokens
        has_text = self._ppo.pretraining_coefficient and self._demonstrations
        text = _rows(self._demonstrations, self._ppo.pretraining_rows, seed, self._pad_id) if has_text else None
        for batch in batches:
            parts = [batch] if text is None or self._warms_up else [batch, next(text)]
            yield [piece for part in parts for piece in (split_by_tokens(part, most) if most else [part])]


def ppo_objective(config: PpoConfig, warms_up: Callable[[], bool]) -> Objective:
    """The clipped losses of an `ActorCritic` on rollouts, and the likelihood of text.

    A batch holds rollouts (`old`, `old_values`, `advantages` and `returns` beside the tokens) or text. The losses of
    value and policy are means over response tokens, the likelihood over the text's targets.

    Args:
        config: Clips and the weight of the likelihood.
        warms_up: Whether the value model learns alone, as it is before a step.
    """

    def means(models: Any, batch: Batch) -> tuple[Mapping[str, Tensor], MetricSums]:
        policy = models.policy
        if "advantages" not in batch:
            hidden = hidden_states(policy, batch["input_ids"], batch["attention_mask"])
            likelihood = chunked_cross_entropy(hidden, output_weight(policy), batch["labels"])
            return {"text": config.pretraining_coefficient * likelihood}, {}
        mask = (batch["labels"] != IGNORE_INDEX).float()
        losses = ppo_value_loss(models.values(batch), batch["old_values"], batch["returns"], config.value_clip)
        found = {"value": masked_mean(losses, mask)}
        if not warms_up():
            hidden = hidden_states(policy, batch["input_ids"], batch["attention_mask"])
            log_probs = token_log_probs(hidden, output_weight(policy), batch["labels"])
            losses = ppo_policy_loss(log_probs, batch["old"], batch["advantages"], config.policy_clip)
            found["policy"] = masked_mean(losses, mask)
        count = float(mask.sum())
        return found, {f"{name}_loss": (float(mean.detach()) * count, count) for name, mean in found.items()}

    return Objective(_count_tokens, means)


def _count_tokens(batch: Batch) -> Counts:
    count = count_targets(batch)
    responses, text = (count, 0.0) if "advantages" in batch else (0.0, count)
    return {"value": responses, "policy": responses, "text": text}


def tokenize_demonstrations(tokenizer: Any, rows: Sequence[Conversation], max_length_tokens: int) -> list[Example]:
    """The answered training rows that fit, for the likelihood term."""
    encoded = [encode_row(tokenizer, row) for row in rows if row.is_answered and row.split == "train"]
    return [example for example in encoded if len(example.tokens) <= max_length_tokens]


def _rows(examples: Sequence[Example], count: int, seed: int, pad_id: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        chosen = torch.randint(len(examples), (count,), generator=generator).tolist()
        yield pad_batch([examples[index] for index in chosen], pad_id)
