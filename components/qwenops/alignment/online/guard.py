"""The reward-hacking guard: what an episode's figures must satisfy, and the policy to go back to.

A policy that is trained on a reward model learns to please it: in trials of a model of half a million parameters
the reward rose fivefold while the share of right answers fell to nothing. So the guard looks at what the reward does
not see: a verifier, the divergence from the reference, the length of the answers.
"""

import copy
from dataclasses import dataclass, field

from torch import Tensor, nn

from qwenops.alignment.online.config import GuardConfig


@dataclass(frozen=True)
class Facts:
    """One policy's figures.

    Attributes:
        episode: Episode at whose start they were taken.
        reward: Mean reward of its rollouts.
        kl: Divergence from the policy that the stage began with, nats per token.
        pass_rate: Verified share on the guard's questions.
        characters: Mean length of its rollouts.
    """

    episode: int
    reward: float
    kl: float
    pass_rate: float
    characters: float


@dataclass
class Guard:
    """Judges policies one after the other and keeps the best.

    Attributes:
        config: The limits.
        best: Figures of the best policy so far.
        weights: Its weights.
        rollbacks: How often a policy was refused.
    """

    config: GuardConfig
    best: Facts | None = None
    weights: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    first: Facts | None = None
    rollbacks: int = 0

    def judge(self, policy: nn.Module, facts: Facts) -> str:
        """Accept `policy` ("") or refuse it: restore the best weights into it and return why."""
        reason = self._complaint(facts)
        if reason:
            self.rollbacks += 1
            policy.load_state_dict(self.weights)
            return reason
        self.first = self.first or facts
        if self.best is None or facts.pass_rate >= self.best.pass_rate:
            self.best = facts
            self.weights = copy.deepcopy(policy.state_dict())
        return ""

    def _complaint(self, facts: Facts) -> str:
        if self.first is None or self.best is None:
            return ""
        if facts.kl > self.config.max_kl:
            return f"divergence {facts.kl:.3f} is above {self.config.max_kl}"
        if facts.pass_rate < self.best.pass_rate - self.config.max_pass_rate_drop:
            return f"pass rate fell from {self.best.pass_rate:.3f} to {facts.pass_rate:.3f}"
        ratio = facts.characters / self.first.characters
        if not 1 / self.config.max_length_ratio <= ratio <= self.config.max_length_ratio:
            return f"answers are {ratio:.2f} times as long as at the start"
        return ""
