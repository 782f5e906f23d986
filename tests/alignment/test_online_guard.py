"""Reward hacking is made to happen with a reward that only counts letters, and must be caught."""

from dataclasses import dataclass

import pytest
import torch
from scipy.stats import binomtest
from tests.alignment.conftest import small_model

from qwenops.alignment.examples import pad_id_of
from qwenops.alignment.online.config import GuardConfig, MergingConfig, OnlineConfig, PpoConfig
from qwenops.alignment.online.guard import AnswerScores, PolicyMetrics, RollbackGuard, sign_test
from qwenops.alignment.online.learner import DpoLearner, adamw_optimizer
from qwenops.alignment.online.loop import OnlineLoop
from qwenops.alignment.online.ppo import PpoLearner
from qwenops.alignment.online.rollouts import Rollout, Sampler, best_and_worst, mean_kl
from qwenops.alignment.reward_model import RewardModel
from qwenops.contracts.conversation import Conversation, ask, conversation_id
from qwenops.generation.engine import Sampling
from qwenops.training.batching import Example
from qwenops.training.config import TrainingConfig


@dataclass
class CountsLetters:
    """A hackable reward: the share of ASCII letters and digits in a response of eight tokens."""

    def score(self, rows, responses):
        return [sum(letter.isascii() and letter.isalnum() for letter in text) / 8 for text in responses]


def settings(**changes):
    base = {
        "episodes": 6,
        "prompts_per_episode": 16,
        "samples": 6,
        "top_p": 1.0,
        "beta": 0.1,
        "pairs_per_step": 4,
        "training": TrainingConfig(
            learning_rate=3e-3, final_learning_rate=3e-3, warmup_steps=0, schedule="constant", weight_decay=0.0
        ),
        "merging": MergingConfig(),
        "guard": GuardConfig(max_kl=100.0, max_length_ratio=100.0, max_pass_rate_drop=1.0),
    }
    return OnlineConfig(**(base | changes))


def better_than_the_start(policy):
    """Marks by which every policy but the untouched one has all right."""
    start = small_model().state_dict()
    changed = any(not torch.equal(value, start[name]) for name, value in policy.state_dict().items())
    return AnswerScores([float(changed)] * 8, [float(changed)] * 8)


def run_loop(config, tokenizer, *, measure=better_than_the_start, learner=None, state_file=None):
    prompts = [Conversation(id=conversation_id(str(n)), messages=ask(f"Say {n}")) for n in range(16)]
    sampling = Sampling(n=config.samples, temperature=1.0, max_new_tokens=8, seed=3)
    sampler = Sampler(tokenizer, CountsLetters(), sampling, batch_tokens=65536)
    loop = OnlineLoop(config, sampler, prompts, measure, seed=5)
    if learner is None:
        policy = small_model()
        learner = DpoLearner(policy, config, adamw_optimizer(policy, config), pad_id_of(tokenizer))
    return loop.run(learner, state_file), learner


def test_online_dpo_raises_the_reward_it_is_given(tokenizer):
    outcome, _ = run_loop(settings(), tokenizer)
    rewards = [facts.reward for facts in outcome.policy_metrics]
    assert rewards[-1] > rewards[0] + 0.1
    assert outcome.rollbacks == 0


def test_reward_hacking_is_caught_by_the_divergence_and_the_start_restored(tokenizer):
    config = settings(guard=GuardConfig(max_kl=0.02, max_length_ratio=100.0, max_pass_rate_drop=1.0, max_rollbacks=2))
    outcome, learner = run_loop(config, tokenizer)
    assert outcome.rollbacks == 2
    assert "divergence" in next(iter(outcome.rejections.values()))
    assert outcome.best.kl <= 0.02
    refused = [facts for facts in outcome.policy_metrics if facts.episode in outcome.rejections]
    assert max(facts.reward for facts in refused) > outcome.policy_metrics[0].reward
    assert learner.learning_rate_scale == pytest.approx(0.25)


def test_reward_hacking_is_caught_by_the_verifier_and_the_best_policy_returned(tokenizer):
    start = small_model().state_dict()

    def honest_only(policy):
        """A verifier that only the untouched policy satisfies."""
        right = float(all(torch.equal(value, start[name]) for name, value in policy.state_dict().items()))
        return AnswerScores([right], [right])

    config = settings(guard=GuardConfig(max_kl=100.0, max_length_ratio=100.0, max_pass_rate_drop=0.05, max_rollbacks=2))
    outcome, learner = run_loop(config, tokenizer, measure=honest_only)
    assert outcome.rollbacks == 2
    assert "pass rate fell from 1.000 to 0.000" in outcome.rejections[1]
    assert honest_only(learner.policy).verifier == [1.0]


@pytest.mark.parametrize("characters", [3.0, 30.0])
def test_guard_refuses_answers_whose_length_drifted(characters):
    guard, policy = RollbackGuard(GuardConfig()), torch.nn.Linear(2, 2)
    assert guard.accept_or_restore(policy, PolicyMetrics(0, 0.0, 0.0, 0.5, 10.0), AnswerScores([1.0], [1.0])) == ""
    assert "times as long" in guard.accept_or_restore(
        policy, PolicyMetrics(1, 1.0, 0.0, 0.5, characters), AnswerScores([1.0], [1.0])
    )


@pytest.mark.parametrize(("gains", "losses"), [(0, 0), (1, 0), (5, 0), (9, 2), (20, 20), (40, 22), (3, 11)])
def test_sign_test_is_scipys_exact_binomial_test(gains, losses):
    before = [0.0] * gains + [1.0] * losses + [1.0] * 30
    after = [1.0] * gains + [0.0] * losses + [1.0] * 30
    expected = binomtest(gains, gains + losses, alternative="greater").pvalue if gains + losses else 1.0
    assert sign_test(before, after) == pytest.approx(expected)


@pytest.mark.parametrize(("proof", "kept"), [("verifier", 1), ("reward", 2)])
def test_guard_keeps_the_policy_that_beats_the_start_in_what_is_asked_for(proof, kept):
    guard, policy = RollbackGuard(GuardConfig(proof=proof, max_pass_rate_drop=1.0)), torch.nn.Linear(2, 2)
    none, some, most = [0.0] * 20, [1.0] * 4 + [0.0] * 16, [1.0] * 12 + [0.0] * 8
    for episode, marks in enumerate(
        (AnswerScores(none, none), AnswerScores(most, some), AnswerScores(some, most), AnswerScores(none, none))
    ):
        with torch.no_grad():
            policy.weight.fill_(episode)
        assert (
            guard.accept_or_restore(policy, PolicyMetrics(episode, 0.0, 0.0, sum(marks.verifier) / 20, 10.0), marks)
            == ""
        )
    assert guard.best.episode == kept
    assert torch.all(guard.weights["weight"] == kept)


def test_each_sample_carries_the_version_of_the_weights_of_its_episode(tokenizer):
    outcome, _ = run_loop(settings(episodes=2), tokenizer)
    assert {sample["episode"] for sample in outcome.samples} == {0, 1, 2}
    assert all(sample["version"] == sample["episode"] for sample in outcome.samples)


def test_stopped_run_resumes_at_its_episode_with_the_same_result(tokenizer, tmp_path):
    whole, _ = run_loop(settings(episodes=3), tokenizer)
    file = tmp_path / "state.pt"
    calls = []

    def dies_at_the_third(policy):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return better_than_the_start(policy)

    with pytest.raises(KeyboardInterrupt):
        run_loop(settings(episodes=3), tokenizer, measure=dies_at_the_third, state_file=file)
    resumed, _ = run_loop(settings(episodes=3), tokenizer, state_file=file)
    assert [facts.reward for facts in resumed.policy_metrics] == [facts.reward for facts in whole.policy_metrics]


def rollout(response, reward, log_prob=-1.0, reference=-1.0):
    row = Conversation(id="a", messages=ask("Hi"))
    return Rollout(row, response, reward, Example([1], [True]), torch.tensor([log_prob]), torch.tensor([reference]), 0)


def test_best_and_worst_come_from_the_same_prompt_and_equal_ones_are_dropped():
    rewards = {"a": 1.0, "b": 3.0, "c": 2.0, "d": 5.0, "e": 5.0, "f": 5.0}
    rollouts = [rollout(response, reward) for response, reward in rewards.items()]
    pairs = best_and_worst(rollouts, samples=3, min_margin=0.0)
    assert [(best.response, worst.response) for best, worst in pairs] == [("b", "a")]
    assert best_and_worst(rollouts, samples=3, min_margin=2.0) == []


def test_divergence_is_zero_for_the_reference_and_positive_elsewhere():
    assert mean_kl([rollout("a", 0.0)]) == 0.0
    assert mean_kl([rollout("a", 0.0, log_prob=-1.0, reference=-2.0)]) > 0
    assert mean_kl([rollout("a", 0.0, log_prob=-2.0, reference=-1.0)]) > 0


def ppo_learner(tokenizer, **changes):
    ppo = PpoConfig(policy_learning_rate=1e-3, value_learning_rate=5e-3, **changes)
    config = settings(algorithm="ppo", samples=2, pairs_per_step=8, ppo=ppo)
    torch.manual_seed(1)
    return config, PpoLearner(small_model(), RewardModel(small_model(1)), config, [], pad_id_of(tokenizer))


def test_ppo_leaves_the_policy_alone_while_the_value_model_warms_up(tokenizer):
    config, learner = ppo_learner(tokenizer, value_warmup_steps=50, passes=25)
    start = {name: value.clone() for name, value in learner.policy.state_dict().items()}
    config = config.model_copy(update={"episodes": 1})
    run_loop(config, tokenizer, learner=learner)
    assert learner.steps == 50
    assert all(torch.equal(value, start[name]) for name, value in learner.policy.state_dict().items())


def test_ppo_raises_the_reward_after_the_warm_up(tokenizer):
    config, learner = ppo_learner(tokenizer, value_warmup_steps=4, kl_coefficient=0.01, passes=2)
    config = config.model_copy(update={"episodes": 14, "prompts_per_episode": 16})
    outcome, _ = run_loop(config, tokenizer, learner=learner)
    rewards = [facts.reward for facts in outcome.policy_metrics]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.05
    assert outcome.policy_metrics[-1].kl < 5.0


def test_ppo_adds_the_likelihood_of_demonstrations_when_asked(tokenizer):
    config, _ = ppo_learner(tokenizer, value_warmup_steps=0, pretraining_coefficient=1.0, pretraining_rows=4)
    text = [Example(tokenizer("some text to keep")["input_ids"], [True] * 17)]
    learner = PpoLearner(small_model(), RewardModel(small_model(1)), config, text, pad_id_of(tokenizer))
    before = {name: value.clone() for name, value in learner.policy.state_dict().items()}
    outcome, _ = run_loop(config.model_copy(update={"episodes": 1}), tokenizer, learner=learner)
    assert outcome.episode_metrics[0]["tokens"] > 0
    assert any(not torch.equal(value, before[name]) for name, value in learner.policy.state_dict().items())
