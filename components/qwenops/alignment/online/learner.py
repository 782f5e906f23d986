"""What an online algorithm does with one episode's rollouts; the DPO one."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from transformers import PreTrainedModel

from qwenops.alignment.examples import pair_stream
from qwenops.alignment.objectives import dpo_objective
from qwenops.alignment.online.config import OnlineConfig
from qwenops.alignment.online.rollouts import Rollout, best_and_worst, to_pair
from qwenops.training.fit import fit
from qwenops.training.online_merging import OnlineMergingOptimizer
from qwenops.training.optimizer import build_optimizer


class Learner(Protocol):
    """Improves `policy` from rollouts."""

    policy: PreTrainedModel
    learning_rate_scale: float

    def update(self, rollouts: Sequence[Rollout], seed: int) -> dict[str, float]:
        """Update the policy in place; returns figures of the episode, `tokens` among them."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything to continue from, the policy's weights included."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        ...


class DpoLearner:
    """One pass of DPO over the best-against-worst pairs of each episode (report 4.3).

    The rate of an episode follows the linear warm-up over all steps so far: Adam's first steps move every weight by
    the full rate, whatever the gradient.

    Args:
        policy: Trained in place.
        config: The stage's config.
        optimizer: Steps the policy; kept over the episodes.
        pad_id: Fills the rows.
    """

    def __init__(
        self, policy: PreTrainedModel, config: OnlineConfig, optimizer: torch.optim.Optimizer, pad_id: int
    ) -> None:
        self.policy, self._config, self._optimizer, self._pad_id = policy, config, optimizer, pad_id
        self.learning_rate_scale, self._steps = 1.0, 0

    def update(self, rollouts: Sequence[Rollout], seed: int) -> dict[str, float]:
        """See `Learner.update`; no pair, no step."""
        chosen = best_and_worst(rollouts, self._config.samples, self._config.min_margin)
        if not chosen:
            return {"pairs": 0.0, "tokens": 0.0}
        pairs = [to_pair(best, worst) for best, worst in chosen]
        per_step = min(self._config.pairs_per_step, len(pairs))
        steps = len(pairs) // per_step
        warm = min(1.0, (self._steps + 1) / max(self._config.training.warmup_steps, 1))
        loop = _at_rate(self._config, steps, self.learning_rate_scale * warm)
        objective = dpo_objective(self._config.beta, self._config.nll_weight)
        result = fit(
            self.policy,
            objective,
            lambda start: pair_stream(pairs, per_step, self._pad_id, loop.pair_tokens, seed, start),
            loop,
            optimizer=self._optimizer,
            seed=seed,
        )
        self.policy.eval()
        self._steps += steps
        figures = {"pairs": float(len(pairs)), "left_over": float(len(pairs) - steps * per_step)}
        return figures | {"loss": result.final_loss, "tokens": float(result.tokens)}

    def state_dict(self) -> dict[str, Any]:
        """See `Learner.state_dict`."""
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "rate": self.learning_rate_scale,
            "steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Learner.load_state_dict`."""
        self.policy.load_state_dict(state["policy"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.learning_rate_scale, self._steps = state["rate"], state["steps"]


def merging_optimizer(
    policy: nn.Module,
    directions: Callable[[nn.Module], dict[nn.Parameter, torch.Tensor]],
    config: OnlineConfig,
    seed: int,
) -> OnlineMergingOptimizer:
    """The Online Merging Optimizer over `policy`; matrices decay, vectors do not."""
    training, merging = config.training, config.merging
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return OnlineMergingOptimizer(
        groups,
        directions(policy),
        learning_rate=training.learning_rate,
        betas=(training.beta1, training.beta2),
        epsilon=training.epsilon,
        merge=merging.merge,
        merge_weight=merging.weight,
        keep=merging.keep,
        rescale=merging.rescale,
        merge_every=merging.every_steps,
        seed=seed,
    )


def adamw_optimizer(policy: nn.Module, config: OnlineConfig) -> torch.optim.Optimizer:
    """AdamW with the same settings."""
    return build_optimizer(policy, config.training.model_copy(update={"optimizer": "adamw"}))


def _at_rate(config: OnlineConfig, steps: int, scale: float) -> Any:
    rate = config.training.learning_rate * scale
    changes = {"steps": steps, "learning_rate": rate, "final_learning_rate": rate, "schedule": "constant"}
    return config.training.model_copy(update=changes | {"warmup_steps": 0})
