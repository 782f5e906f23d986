"""Rollouts: responses sampled with the current weights, rewarded, with their log-probabilities."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qwenops.alignment.examples import Pair, encode_sampled, pad_id_of
from qwenops.alignment.objectives import target_log_probs
from qwenops.alignment.online.rewards import RewardFunction
from qwenops.contracts.conversation import Conversation
from qwenops.errors import StageError
from qwenops.generation.engine import Sample, Sampling
from qwenops.generation.in_process import InProcessEngine
from qwenops.training.batching import Example
from qwenops.training.precision import Precision


@dataclass(frozen=True)
class Rollout:
    """One sampled response.

    Attributes:
        row: The prompt's row.
        response: Its text.
        reward: Its reward, less the penalty when it was cut.
        example: Prompt, and the response as the ids that were sampled.
        log_probs: Float [response tokens] under the policy that sampled it.
        reference: Same under the reference policy.
        version: Number of updates the sampling weights had seen.
        is_finished: Whether it ended by itself and was not cut at the token limit.
    """

    row: Conversation
    response: str
    reward: float
    example: Example
    log_probs: Tensor
    reference: Tensor
    version: int
    is_finished: bool = True


@dataclass(frozen=True)
class Sampler:
    """Samples and rewards; holds what stays the same over a run.

    Attributes:
        tokenizer: The policy's tokenizer.
        reward: Rates the responses.
        sampling: How to draw, with n responses per prompt.
        batch_tokens: Cached tokens per generation batch.
        truncation_penalty: Taken from the reward of a response that was cut at the token limit.
    """

    tokenizer: PreTrainedTokenizerBase
    reward: RewardFunction
    sampling: Sampling
    batch_tokens: int
    truncation_penalty: float = 1.0

    def sample(
        self,
        policy: PreTrainedModel,
        reference: PreTrainedModel,
        rows: Sequence[Conversation],
        version: int,
        precision: Precision,
    ) -> list[Rollout]:
        """Draw `sampling.n` responses to each row's prompt; rollouts of one prompt stand together.

        Args:
            policy: Draws.
            reference: What the loss compares with.
            rows: Prompts.
            version: Number of updates that the policy has seen.
            precision: Of the training that follows, see `target_log_probs`.

        Raises:
            StageError: a reward is not a finite number.
        """
        engine = InProcessEngine(policy, self.tokenizer, batch_tokens=self.batch_tokens)
        sampling = self.sampling.model_copy(update={"seed": self.sampling.seed + version})
        groups = engine.generate([row.prompt for row in rows], sampling)
        # A sure policy answers alike: what was drawn several times to one prompt is scored once.
        first: dict[tuple[int, tuple[int, ...] | None], int] = {}
        distinct: list[tuple[Conversation, Sample]] = []
        places: list[int] = []
        for number, (row, group) in enumerate(zip(rows, groups, strict=True)):
            for sample in group:
                place = first.setdefault((number, sample.token_ids), len(first))
                places.append(place)
                if place == len(distinct):
                    distinct.append((row, sample))
        found = self._score(policy, reference, distinct, version, precision)
        return [found[place] for place in places]

    def _score(
        self,
        policy: PreTrainedModel,
        reference: PreTrainedModel,
        drawn: Sequence[tuple[Conversation, Sample]],
        version: int,
        precision: Precision,
    ) -> list[Rollout]:
        rows, texts = [row for row, _ in drawn], [sample.text for _, sample in drawn]
        scored = self.reward.score(rows, texts)
        _refuse_broken(scored, texts)
        examples = [encode_sampled(self.tokenizer, row.prompt, sample.token_ids or ()) for row, sample in drawn]
        pad_id = pad_id_of(self.tokenizer)
        own, fixed = (target_log_probs(model, examples, pad_id, precision) for model in (policy, reference))
        return [
            Rollout(
                row=row,
                response=sample.text,
                reward=reward - self.truncation_penalty * (not sample.is_whole),
                example=example,
                log_probs=drawn_as,
                reference=compared_with,
                version=version,
                is_finished=sample.is_whole,
            )
            for (row, sample), reward, example, drawn_as, compared_with in zip(
                drawn, scored, examples, own, fixed, strict=True
            )
        ]


def replace_reference(
    start: PreTrainedModel, rollouts: Sequence[Rollout], pad_id: int, precision: Precision
) -> list[Rollout]:
    """The rollouts with `start` for their reference."""
    found = target_log_probs(start, [item.example for item in rollouts], pad_id, precision)
    return [replace(item, reference=values) for item, values in zip(rollouts, found, strict=True)]


def num_tied(rollouts: Sequence[Rollout], samples: int) -> int:
    """Prompts whose `samples` responses all have the same reward, so that none is better than another."""
    groups = (rollouts[start : start + samples] for start in range(0, len(rollouts), samples))
    return sum(len({item.reward for item in group}) == 1 for group in groups)


def best_and_worst(rollouts: Sequence[Rollout], samples: int, min_margin: float) -> list[tuple[Rollout, Rollout]]:
    """Best and worst response of each prompt, where the texts differ and the rewards by more than `min_margin`."""
    pairs: list[tuple[Rollout, Rollout]] = []
    for start in range(0, len(rollouts), samples):
        group = rollouts[start : start + samples]
        best, worst = max(group, key=lambda item: item.reward), min(group, key=lambda item: item.reward)
        if best.response != worst.response and best.reward - worst.reward > min_margin:
            pairs.append((best, worst))
    return pairs


def to_pair(best: Rollout, worst: Rollout) -> Pair:
    """A DPO pair with its reference log-probabilities."""
    return Pair(best.example, worst.example, (float(best.reference.sum()), float(worst.reference.sum())))


def mean_kl(rollouts: Sequence[Rollout]) -> float:
    """KL(policy || reference) in nats per response token, by the estimator `q/p - 1 - log(q/p)`.

    It is never negative and has little variance (Schulman, "Approximating KL divergence").
    """
    if not rollouts:
        return 0.0
    ratio = torch.cat([item.reference for item in rollouts]) - torch.cat([item.log_probs for item in rollouts])
    return float((ratio.exp() - 1 - ratio).mean())


def _refuse_broken(rewards: Sequence[float], responses: Sequence[str]) -> None:
    broken = [place for place, reward in enumerate(rewards) if not math.isfinite(reward)]
    if broken:
        raise StageError(
            f"{len(broken)} of {len(rewards)} rewards are no finite numbers",
            expected="a finite reward of every response",
            found=f"{rewards[broken[0]]} of {responses[broken[0]]!r:.80}",
            action="look at the reward stage's loss and pair accuracy, and train it again with a lower learning rate",
        )


def mean_reward(rollouts: Sequence[Rollout]) -> float:
    """Mean reward of rollouts."""
    return sum(item.reward for item in rollouts) / len(rollouts)


def truncated_share(rollouts: Sequence[Rollout]) -> float:
    """Share of rollouts that were cut at the token limit."""
    return sum(not item.is_finished for item in rollouts) / len(rollouts)


def mean_characters(rollouts: Sequence[Rollout]) -> float:
    """Mean length of responses in characters, at least one."""
    return max(1.0, sum(len(item.response) for item in rollouts) / len(rollouts))
