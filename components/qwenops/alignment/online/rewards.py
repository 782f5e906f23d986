"""Where the reward of a sampled response comes from: the reward model, a verifier, or both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from qwenops.alignment.online.config import RewardSourceConfig
from qwenops.alignment.reward_model import RewardModel, score
from qwenops.contracts.conversation import Conversation
from qwenops.tasks.verifiable import verify


class RewardFunction(Protocol):
    """Anything that rates responses."""

    def score(self, rows: Sequence[Conversation], responses: Sequence[str]) -> list[float]:
        """One reward per (row, response)."""
        ...


@dataclass(frozen=True)
class ModelReward:
    """The reward model's standardised score."""

    model: RewardModel
    tokenizer: PreTrainedTokenizerBase
    weight: float = 1.0

    def score(self, rows: Sequence[Conversation], responses: Sequence[str]) -> list[float]:
        """See `RewardFunction.score`."""
        scores = score(self.model, self.tokenizer, [row.prompt for row in rows], responses)
        return [self.weight * value for value in scores]


@dataclass(frozen=True)
class VerifierReward:
    """`weight` for a verified answer; nothing for a wrong one or where nothing can be verified."""

    weight: float = 1.0

    def score(self, rows: Sequence[Conversation], responses: Sequence[str]) -> list[float]:
        """See `RewardFunction.score`."""
        return [
            self.weight * bool(row.verifier and verify(row.verifier, text))
            for row, text in zip(rows, responses, strict=True)
        ]


@dataclass(frozen=True)
class SumReward:
    """The sum of several sources."""

    sources: tuple[RewardFunction, ...]

    def score(self, rows: Sequence[Conversation], responses: Sequence[str]) -> list[float]:
        """See `RewardFunction.score`."""
        return [sum(values) for values in zip(*(source.score(rows, responses) for source in self.sources), strict=True)]


def build_reward_function(
    config: RewardSourceConfig, model: RewardModel, tokenizer: PreTrainedTokenizerBase
) -> RewardFunction:
    """The configured source."""
    from_model = ModelReward(model, tokenizer, config.model_weight)
    from_verifier = VerifierReward(config.verifier_weight)
    sources: dict[str, RewardFunction] = {
        "model": from_model,
        "verifier": from_verifier,
        "sum": SumReward((from_model, from_verifier)),
    }
    return sources[config.kind]
