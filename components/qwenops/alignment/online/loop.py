"""The online loop: sample with the current weights, judge, learn, repeat; the best policy that passed is kept."""

import copy
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from qwenops.alignment.examples import pad_id_of
from qwenops.alignment.online.config import OnlineConfig
from qwenops.alignment.online.guard import AnswerScores, PolicyMetrics, RollbackGuard
from qwenops.alignment.online.learner import Learner
from qwenops.alignment.online.rollouts import (
    Rollout,
    Sampler,
    mean_characters,
    mean_kl,
    mean_reward,
    num_tied,
    replace_reference,
    truncated_share,
)
from qwenops.contracts.conversation import Conversation

_SAMPLES_KEPT = 4


@dataclass
class OnlineResult:
    """What an online run did.

    Attributes:
        policy_metrics: Figures of every judged policy, in order.
        episode_metrics: Figures of every learning episode.
        rejections: Episode to why its policy was refused.
        skipped_updates: Episode to why nothing was learnt from it.
        samples: A few rollouts of each episode, as plain data, with the version of the weights.
        best: Figures of the policy that was kept.
        tokens: Tokens trained.
        truncated_shares: Share of each judged policy's rollouts that were cut at the token limit, in order.
    """

    policy_metrics: list[PolicyMetrics] = field(default_factory=list[PolicyMetrics])
    episode_metrics: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    rejections: dict[int, str] = field(default_factory=dict[int, str])
    skipped_updates: dict[int, str] = field(default_factory=dict[int, str])
    samples: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    best: PolicyMetrics | None = None
    tokens: int = 0
    truncated_shares: list[float] = field(default_factory=list[float])

    @property
    def rollbacks(self) -> int:
        """Times a policy was refused."""
        return len(self.rejections)


@dataclass(frozen=True)
class OnlineLoop:
    """What one online run needs beside its learner.

    Attributes:
        config: The stage's config.
        sampler: Draws and rewards.
        prompts: Rows to sample from.
        measure: What a policy's answers to the guard's questions are worth.
        seed: Seeds the choice of prompts.
        on_episode: Told the figures after each judgement.
        beside: Does the measuring beside the sampling, as `platform.stage.beside` can; by default after it.
    """

    config: OnlineConfig
    sampler: Sampler
    prompts: Sequence[Conversation]
    measure: Callable[[PreTrainedModel], AnswerScores]
    seed: int
    on_episode: Callable[[PolicyMetrics], None] = lambda _: None
    beside: Callable[[Callable[[], AnswerScores]], AbstractContextManager[Callable[[], AnswerScores]]] = nullcontext

    def run(self, learner: Learner, state_file: Path | None = None) -> OnlineResult:
        """Improve `learner.policy` in place; it ends as the best policy the guard accepted.

        Args:
            learner: Holds the policy at its start, which the guard measures from and which is the first reference.
            state_file: Saved after every episode and resumed from when it exists; None saves nothing.
        """
        start = copy.deepcopy(learner.policy).eval().requires_grad_(requires_grad=False)
        # The guard measures from the start, wherever the reference of the loss goes.
        reference = copy.deepcopy(start) if self.config.reference == "refreshed" else start
        guard, outcome, began = RollbackGuard(self.config.guard), OnlineResult(), 0
        if state_file and state_file.exists():
            guard, outcome, began = _resume(state_file, learner, self.config, reference)
        for episode in range(began, self.config.episodes + 1):
            with self.beside(partial(self.measure, learner.policy)) as measured:
                rollouts = self._sample(learner.policy, reference, episode)
                scores = measured()
            reason = self._judge(guard, learner, rollouts, scores, episode, outcome, start)
            if reason:
                outcome.rejections[episode] = reason
                learner.learning_rate_scale *= self.config.guard.rate_factor
                if guard.rollbacks >= self.config.guard.max_rollbacks:
                    break
            elif episode < self.config.episodes:
                self._learn(learner, rollouts, episode, outcome)
                if self.config.reference == "refreshed":
                    reference.load_state_dict(learner.policy.state_dict())
            if state_file:
                _save(state_file, learner, guard, outcome, reference, episode + 1)
        learner.policy.load_state_dict(guard.weights)
        outcome.best = guard.best
        return outcome

    def _sample(self, policy: PreTrainedModel, reference: PreTrainedModel, episode: int) -> list[Rollout]:
        count = min(self.config.prompts_per_episode, len(self.prompts))
        chosen = np.random.default_rng((self.seed, episode)).choice(len(self.prompts), count, replace=False)
        rows = [self.prompts[index] for index in chosen]
        return self.sampler.sample(policy, reference, rows, episode, self.config.training.precision)

    def _learn(self, learner: Learner, rollouts: Sequence[Rollout], episode: int, outcome: OnlineResult) -> None:
        """Learn from the rollouts, unless their rewards are all the same and so say nothing."""
        tied = num_tied(rollouts, self.config.samples)
        rewards = {item.reward for item in rollouts}
        figures = learner.update(rollouts, self.seed + episode) if len(rewards) > 1 else {"tokens": 0.0}
        outcome.episode_metrics.append({"episode": float(episode), "tied": float(tied)} | figures)
        outcome.tokens += int(figures["tokens"])
        if not figures["tokens"]:
            prompts = len(rollouts) // self.config.samples
            outcome.skipped_updates[episode] = f"the responses to {tied} of {prompts} prompts have one reward"

    def _judge(
        self,
        guard: RollbackGuard,
        learner: Learner,
        rollouts: Sequence[Rollout],
        scores: AnswerScores,
        episode: int,
        outcome: OnlineResult,
        start: PreTrainedModel,
    ) -> str:
        measured = rollouts
        if self.config.reference == "refreshed":
            pad_id = pad_id_of(self.sampler.tokenizer)
            measured = replace_reference(start, rollouts, pad_id, self.config.training.precision)
        facts = PolicyMetrics(
            episode=episode,
            reward=mean_reward(rollouts),
            kl=mean_kl(measured),
            pass_rate=sum(scores.verifier) / len(scores.verifier),
            characters=mean_characters(rollouts),
        )
        outcome.policy_metrics.append(facts)
        outcome.truncated_shares.append(truncated_share(rollouts))
        outcome.samples += [
            {
                "episode": episode,
                "version": item.version,
                "prompt": item.row.instruction,
                "response": item.response,
                "reward": round(item.reward, 4),
                "finish": "stop" if item.is_finished else "length",
            }
            for item in rollouts[:_SAMPLES_KEPT]
        ]
        self.on_episode(facts)
        return guard.accept_or_restore(learner.policy, facts, scores)


def _save(
    file: Path, learner: Learner, guard: RollbackGuard, outcome: OnlineResult, reference: PreTrainedModel, episode: int
) -> None:
    judged = {
        "best": asdict(guard.best) if guard.best else None,
        "first": asdict(guard.first) if guard.first else None,
        "first_scores": asdict(guard.first_scores),
        "best_scores": asdict(guard.best_scores),
        "rollbacks": guard.rollbacks,
    }
    saved = {
        "plain": json.dumps(asdict(outcome) | {"guard": judged, "episode": episode}),
        "learner": learner.state_dict(),
        "best": guard.weights,
        "reference": reference.state_dict(),
    }
    temporary = file.with_suffix(".tmp")
    torch.save(saved, temporary)
    temporary.replace(file)


def _resume(
    file: Path, learner: Learner, config: OnlineConfig, reference: PreTrainedModel
) -> tuple[RollbackGuard, OnlineResult, int]:
    saved = torch.load(file, map_location="cpu", weights_only=True)
    plain = json.loads(saved["plain"])
    learner.load_state_dict(saved["learner"])
    reference.load_state_dict(saved["reference"])
    kept = plain["guard"]
    best, first = PolicyMetrics(**kept["best"]), PolicyMetrics(**kept["first"])
    scores = {name: AnswerScores(**kept[name]) for name in ("first_scores", "best_scores")}
    guard = RollbackGuard(
        config.guard, best=best, weights=saved["best"], first=first, rollbacks=kept["rollbacks"], **scores
    )
    outcome = OnlineResult(
        policy_metrics=[PolicyMetrics(**facts) for facts in plain["policy_metrics"]],
        episode_metrics=plain["episode_metrics"],
        rejections={int(episode): reason for episode, reason in plain["rejections"].items()},
        skipped_updates={int(episode): reason for episode, reason in plain["skipped_updates"].items()},
        samples=plain["samples"],
        tokens=plain["tokens"],
        truncated_shares=plain["truncated_shares"],
    )
    return guard, outcome, int(plain["episode"])
