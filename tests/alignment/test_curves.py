"""Curves of a stage that is killed and goes on are those of one process: no step is missing, none doubled."""

import pytest
from tests.alignment.test_stages import MEASURE
from tests.platform.killing import killed_after, steps_of

from qwenops.alignment.dpo.config import DpoConfig
from qwenops.alignment.online.config import OnlineConfig, RewardSourceConfig
from qwenops.alignment.reward.config import RewardConfig
from qwenops.alignment.sft.config import SftConfig
from qwenops.training.config import TrainingConfig

TRAINING = TrainingConfig(
    steps=6,
    batch_tokens=512,
    learning_rate=1e-3,
    final_learning_rate=1e-4,
    warmup_steps=0,
    schedule="linear",
    checkpoint_every_steps=2,
)
STEPS = list(range(TRAINING.steps))
SERIES = ("loss", "learning_rate", "gradient_norm")
COMMON = {"training": TRAINING, "max_length_tokens": 256}
SFT = SftConfig(**COMMON, budget="steps", control="seed_data", measure=MEASURE)
DPO = DpoConfig(**COMMON, budget="steps", pairs_per_step=4, control="chosen_only", measure=MEASURE)
REWARD = RewardConfig(
    **COMMON, pretraining="run", pretraining_pairs=24, pairs=24, pairs_per_step=4, quality_strategies=("ranked",)
)
ONLINE = OnlineConfig(
    **COMMON,
    episodes=2,
    prompts_per_episode=4,
    samples=2,
    pairs_per_step=2,
    max_new_tokens=4,
    reward=RewardSourceConfig(kind="sum"),
    compare_with="adamw",
    measure=MEASURE,
)


@pytest.fixture
def inputs(artifacts):
    pairs = {"ranked": artifacts["ranked"], "synthesized": artifacts["synthesized"]}
    start = {"checkpoint": artifacts["base"]}
    shown = {"demonstrations": artifacts["demonstrations"]}
    return {
        "sft": start | shown | pairs,
        "dpo": start | shown | pairs,
        "reward": start | pairs,
        "online": start | shown,
    }


@pytest.mark.parametrize(
    ("stage", "config", "arms", "killed"),
    [
        ("sft", SFT, ("sft", "control"), "sft"),
        ("sft", SFT, ("sft", "control"), "control"),
        ("reward", REWARD, ("pretraining", "finetuning"), "finetuning"),
        ("dpo", DPO, ("dpo", "control"), "dpo"),
        ("dpo", DPO, ("dpo", "control"), "control"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_curves_are_whole_whichever_arm_was_killed(run_stage, inputs, stage, config, arms, killed):
    killed_after(f"loss.{killed}", 4, run_stage, stage, config, inputs[stage])
    found = steps_of(run_stage(stage, config, inputs[stage]).path)
    assert {f"{name}.{arm}" for name in SERIES for arm in arms} <= set(found)
    assert {name: steps for name, steps in found.items() if steps != STEPS} == {}


@pytest.mark.parametrize("arm", ["online", "adamw"])
def test_curves_of_the_online_stage_have_every_episode_of_both_arms(run_stage, artifacts, inputs, arm):
    reward = run_stage("reward", REWARD.model_copy(update={"pretraining": "skip", "pairs": 4}), inputs["reward"])
    models = {"base": artifacts["base"], "sft": artifacts["base"], "reward": reward.path}
    killed_after(f"kl.{arm}", 1, run_stage, "online", ONLINE, inputs["online"] | models)
    found = steps_of(run_stage("online", ONLINE, inputs["online"] | models).path)
    assert {name.split(".")[-1] for name in found} == {"online", "adamw"}
    assert {name: steps for name, steps in found.items() if steps != [0, 1, 2]} == {}
