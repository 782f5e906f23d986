"""The reward-hacking guard: what an episode's figures must satisfy, and the policy to go back to.

A policy that is trained on a reward model learns to please it: in trials of a model of half a million parameters
the reward rose fivefold while the share of right answers fell to nothing. So the guard looks at what the reward does
not see: a verifier, the divergence from the reference, the length of the answers.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from qwenops.alignment.online.config import GuardConfig


@dataclass(frozen=True)
class PolicyMetrics:
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


@dataclass(frozen=True)
class AnswerScores:
    """What one policy's likeliest answers to the guard's questions are worth, in the questions' order.

    Attributes:
        verifier: 1 where the answer is right, else 0.
        reward: Reward of the answer.
    """

    verifier: Sequence[float]
    reward: Sequence[float]


@dataclass
class RollbackGuard:
    """Judges policies one after the other and keeps the best.

    Attributes:
        config: The limits.
        best: Figures of the best policy so far.
        weights: Its weights.
        first: Figures of the start.
        first_scores: Scores of the start.
        best_scores: Scores of the best policy so far.
        rollbacks: How often a policy was refused.
    """

    config: GuardConfig
    best: PolicyMetrics | None = None
    weights: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    first: PolicyMetrics | None = None
    first_scores: AnswerScores = AnswerScores((), ())
    best_scores: AnswerScores = AnswerScores((), ())
    rollbacks: int = 0

    def accept_or_restore(self, policy: nn.Module, facts: PolicyMetrics, marks: AnswerScores) -> str:
        """Accept `policy` ("") or refuse it: restore the best weights into it and return why.

        An accepted policy is the new best when its mean mark is at least the best one's and it beats the start on the
        same questions by a sign test: of many policies one looks better by chance.

        Args:
            policy: What is judged.
            facts: Its figures.
            marks: What its answers are worth.
        """
        reason = self._complaint(facts)
        if reason:
            self.rollbacks += 1
            policy.load_state_dict(self.weights)
            return reason
        if self.first is None or self.best is None:
            self.first, self.first_scores = facts, marks
            self._keep(policy, facts, marks)
        elif self._is_better(marks):
            self._keep(policy, facts, marks)
        return ""

    def _keep(self, policy: nn.Module, facts: PolicyMetrics, marks: AnswerScores) -> None:
        self.best, self.best_scores, self.weights = facts, marks, copy.deepcopy(policy.state_dict())

    def _is_better(self, marks: AnswerScores) -> bool:
        start, best, own = (getattr(item, self.config.proof) for item in (self.first_scores, self.best_scores, marks))
        return sum(own) >= sum(best) and sign_test(start, own) <= self.config.significance

    def _complaint(self, facts: PolicyMetrics) -> str:
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


def sign_test(before: Sequence[float], after: Sequence[float]) -> float:
    """Probability of at least so many gains among the answers that changed if gains and losses were equally likely.

    Exact and one-sided (Dixon and Mood 1946; with paired answers it is McNemar's test): 1 where nothing changed.
    """
    gains = sum(new > old for old, new in zip(before, after, strict=True))
    changed = sum(new != old for old, new in zip(before, after, strict=True))
    return sum(math.comb(changed, count) for count in range(gains, changed + 1)) / 2**changed
