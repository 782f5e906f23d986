"""What the online stage measures from, what it does with rewards that say nothing, and what PPO's warm-up counts."""

import math
from dataclasses import dataclass, field

import pytest
import torch
from tests.alignment.conftest import small_model
from tests.alignment.test_online_guard import CountsLetters, better_than_the_start, ppo_learner, settings

from qwenops.alignment.examples import pad_id_of
from qwenops.alignment.online.config import PpoConfig
from qwenops.alignment.online.learner import DpoLearner, adamw_optimizer
from qwenops.alignment.online.loop import OnlineLoop
from qwenops.alignment.online.ppo import PpoLearner
from qwenops.alignment.online.rollouts import Sampler
from qwenops.alignment.reward_model import RewardModel
from qwenops.contracts.conversation import Conversation, ask, conversation_id
from qwenops.errors import StageError
from qwenops.generation.engine import Sampling
from qwenops.training.config import TrainingConfig

PROMPTS = [Conversation(id=conversation_id(str(n)), messages=ask(f"Say {n}")) for n in range(8)]


@dataclass
class Rewards:
    """Rewards by call: each of `calls` maps a response's place to its reward."""

    calls: list
    texts: list = field(default_factory=list)

    def score(self, rows, responses):
        self.texts.append(list(responses))
        rule = self.calls[min(len(self.texts), len(self.calls)) - 1]
        return [rule(place) for place in range(len(responses))]


def run_with(reward, tokenizer, learner=None, **changes):
    config = settings(prompts_per_episode=8, samples=2, **changes)
    policy = small_model()
    learner = learner or DpoLearner(policy, config, adamw_optimizer(policy, config), pad_id_of(tokenizer))
    sampler = Sampler(tokenizer, reward, Sampling(n=2, temperature=1.0, max_new_tokens=4, seed=3), 65536, 0.0)
    return OnlineLoop(config, sampler, PROMPTS, better_than_the_start, seed=5).run(learner), learner


def test_guard_measures_from_the_start_although_the_reference_is_refreshed(tokenizer):
    start = small_model().eval()
    outcome, learner = run_with(CountsLetters(), tokenizer, episodes=2, reference="refreshed")
    assert outcome.policy_metrics[0].kl == pytest.approx(0.0, abs=1e-5)
    assert outcome.policy_metrics[1].kl > 1e-3
    # The same policy's divergence on one fixed text, from the logits themselves.
    ids = torch.tensor([tokenizer("Say 3 and more")["input_ids"]])
    with torch.no_grad():
        own, first = (model(ids).logits.log_softmax(-1) for model in (learner.policy, start))
    assert float((own.exp() * (own - first)).sum(-1).mean()) > 1e-3


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("algorithm", ["dpo", "ppo"])
def test_reward_that_is_no_finite_number_stops_the_stage(tokenizer, broken, algorithm):
    reward = Rewards([lambda place: broken if place == 5 else float(place)])
    learner = ppo_learner(tokenizer)[1] if algorithm == "ppo" else None
    with pytest.raises(StageError, match="1 of 16 rewards are no finite numbers"):
        run_with(reward, tokenizer, learner, algorithm=algorithm, episodes=1)


@pytest.mark.parametrize("algorithm", ["dpo", "ppo"])
def test_episode_whose_rewards_are_all_equal_changes_nothing_and_is_said(tokenizer, algorithm):
    learner = ppo_learner(tokenizer, value_warmup_steps=0)[1] if algorithm == "ppo" else None
    outcome, learner = run_with(Rewards([lambda place: 0.5]), tokenizer, learner, algorithm=algorithm, episodes=1)
    assert outcome.skipped_updates == {0: "the responses to 8 of 8 prompts have one reward"}
    assert outcome.episode_metrics == [{"episode": 0.0, "tied": 8.0, "tokens": 0.0}]
    start = small_model().state_dict()
    assert all(torch.equal(value, start[name]) for name, value in learner.policy.state_dict().items())


def test_prompts_without_a_better_response_are_counted(tokenizer):
    reward = Rewards([lambda place: float(place % 2) if place < 6 else 2.0])
    outcome, _ = run_with(reward, tokenizer, episodes=1)
    assert outcome.episode_metrics[0]["tied"] == 5.0
    assert outcome.episode_metrics[0]["pairs"] <= 3.0
    assert outcome.skipped_updates == {}


@pytest.mark.parametrize(("warmup", "moves"), [(4, False), (3, True)])
def test_warm_up_counts_optimizer_steps_and_not_the_passes_of_a_step(tokenizer, warmup, moves):
    """Four steps of eight passes each."""
    config = settings(
        pairs_per_step=4,
        ppo=PpoConfig(value_warmup_steps=warmup, policy_learning_rate=1e-3, passes=2),
        training=TrainingConfig(micro_batch_tokens=1, weight_decay=0.0),
    )
    learner = PpoLearner(small_model(), RewardModel(small_model(1)), config, [], pad_id_of(tokenizer))
    run_with(Rewards([float]), tokenizer, learner, algorithm="ppo", episodes=1)
    assert learner.steps == 4
    start = small_model().state_dict()
    assert moves == any(not torch.equal(value, start[name]) for name, value in learner.policy.state_dict().items())
