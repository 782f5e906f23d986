"""The online loop: sample with the current weights, judge, learn, repeat; the best policy that passed is kept."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from qwenops.alignment.examples import pad_id_of
from qwenops.alignment.online.config import OnlineConfig
from qwenops.alignment.online.guard import Facts, Guard, Marks
from qwenops.alignment.online.learner import Learner
from qwenops.alignment.online.rollouts import (
    Rollout,
    Sampler,
    cut_share,
    divergence,
    mean_characters,
    mean_reward,
    measured_from,
    num_tied,
)
from qwenops.contracts.conversation import Conversation

_SAMPLES_KEPT = 4


@dataclass
class Outcome:
    """What an online run did.

    Attributes:
        history: Figures of every judged policy, in order.
        learned: Figures of every learning episode.
        verdicts: Episode to why its policy was refused.
        idle: Episode to why nothing was learnt from it.
        samples: A few rollouts of each episode, as plain data, with the version of the weights.
        best: Figures of the policy that was kept.
        tokens: Tokens trained.
        cut: Share of each judged policy's rollouts that were cut at the token limit, in order.
    """

    history: list[Facts] = field(default_factory=list[Facts])
    learned: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    verdicts: dict[int, str] = field(default_factory=dict[int, str])
    idle: dict[int, str] = field(default_factory=dict[int, str])
    samples: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    best: Facts | None = None
    tokens: int = 0
    cut: list[float] = field(default_factory=list[float])

    @property
    def rollbacks(self) -> int:
        """Times a policy was refused."""
        return len(self.verdicts)


@dataclass(frozen=True)
class Loop:
    """What one online run needs beside its learner.

    Attributes:
        config: The stage's config.
        sampler: Draws and rewards.
        prompts: Rows to sample from.
        measure: What a policy's answers to the guard's questions are worth.
        seed: Seeds the choice of prompts.
        on_episode: Told the figures after each judgement.
    """

    config: OnlineConfig
    sampler: Sampler
    prompts: Sequence[Conversation]
    measure: Callable[[PreTrainedModel], Marks]
    seed: int
    on_episode: Callable[[Facts], None] = lambda _: None

    def run(self, learner: Learner, state_file: Path | None = None) -> Outcome:
        """Improve `learner.policy` in place; it ends as the best policy the guard accepted.

        Args:
            learner: Holds the policy at its start, which the guard measures from and which is the first reference.
            state_file: Saved after every episode and resumed from when it exists; None saves nothing.
        """
        start = copy.deepcopy(learner.policy).eval().requires_grad_(requires_grad=False)
        # The guard measures from the start, wherever the reference of the loss goes.
        reference = copy.deepcopy(start) if self.config.reference == "refreshed" else start
        guard, outcome, began = Guard(self.config.guard), Outcome(), 0
        if state_file and state_file.exists():
            guard, outcome, began = _resume(state_file, learner, self.config, reference)
        for episode in range(began, self.config.episodes + 1):
            rollouts = self._sample(learner.policy, reference, episode)
            reason = self._judge(guard, learner, rollouts, episode, outcome, start)
            if reason:
                outcome.verdicts[episode] = reason
                learner.rate_scale *= self.config.guard.rate_factor
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

    def _learn(self, learner: Learner, rollouts: Sequence[Rollout], episode: int, outcome: Outcome) -> None:
        """Learn from the rollouts, unless their rewards are all the same and so say nothing."""
        tied = num_tied(rollouts, self.config.samples)
        rewards = {item.reward for item in rollouts}
        figures = learner.learn(rollouts, self.seed + episode) if len(rewards) > 1 else {"tokens": 0.0}
        outcome.learned.append({"episode": float(episode), "tied": float(tied)} | figures)
        outcome.tokens += int(figures["tokens"])
        if not figures["tokens"]:
            prompts = len(rollouts) // self.config.samples
            outcome.idle[episode] = f"the responses to {tied} of {prompts} prompts have one reward"

    def _judge(
        self,
        guard: Guard,
        learner: Learner,
        rollouts: Sequence[Rollout],
        episode: int,
        outcome: Outcome,
        start: PreTrainedModel,
    ) -> str:
        measured = rollouts
        if self.config.reference == "refreshed":
            pad_id = pad_id_of(self.sampler.tokenizer)
            measured = measured_from(start, rollouts, pad_id, self.config.training.precision)
        marks = self.measure(learner.policy)
        facts = Facts(
            episode=episode,
            reward=mean_reward(rollouts),
            kl=divergence(measured),
            pass_rate=sum(marks.verifier) / len(marks.verifier),
            characters=mean_characters(rollouts),
        )
        outcome.history.append(facts)
        outcome.cut.append(cut_share(rollouts))
        outcome.samples += [
            {
                "episode": episode,
                "version": item.version,
                "prompt": item.row.instruction,
                "response": item.response,
                "reward": round(item.reward, 4),
                "finish": "stop" if item.is_whole else "length",
            }
            for item in rollouts[:_SAMPLES_KEPT]
        ]
        self.on_episode(facts)
        return guard.judge(learner.policy, facts, marks)


def _save(
    file: Path, learner: Learner, guard: Guard, outcome: Outcome, reference: PreTrainedModel, episode: int
) -> None:
    judged = {
        "best": asdict(guard.best) if guard.best else None,
        "first": asdict(guard.first) if guard.first else None,
        "first_marks": asdict(guard.first_marks),
        "best_marks": asdict(guard.best_marks),
        "rollbacks": guard.rollbacks,
    }
    saved = {
        "plain": json.dumps(asdict(outcome) | {"guard": judged, "episode": episode}),
        "learner": learner.state(),
        "best": guard.weights,
        "reference": reference.state_dict(),
    }
    temporary = file.with_suffix(".tmp")
    torch.save(saved, temporary)
    temporary.replace(file)


def _resume(
    file: Path, learner: Learner, config: OnlineConfig, reference: PreTrainedModel
) -> tuple[Guard, Outcome, int]:
    saved = torch.load(file, map_location="cpu", weights_only=True)
    plain = json.loads(saved["plain"])
    learner.restore(saved["learner"])
    reference.load_state_dict(saved["reference"])
    kept = plain["guard"]
    best, first = Facts(**kept["best"]), Facts(**kept["first"])
    marks = {name: Marks(**kept[name]) for name in ("first_marks", "best_marks")}
    guard = Guard(config.guard, best=best, weights=saved["best"], first=first, rollbacks=kept["rollbacks"], **marks)
    outcome = Outcome(
        history=[Facts(**facts) for facts in plain["history"]],
        learned=plain["learned"],
        verdicts={int(episode): reason for episode, reason in plain["verdicts"].items()},
        idle={int(episode): reason for episode, reason in plain["idle"].items()},
        samples=plain["samples"],
        tokens=plain["tokens"],
        cut=plain["cut"],
    )
    return guard, outcome, int(plain["episode"])
