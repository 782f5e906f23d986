"""The four stages run through `execute` on small artifacts, as a pipeline runs them."""

import json

import numpy as np
import pytest
from tests.alignment.conftest import byte_tokenizer, publish

from qwenops.alignment.dpo.config import DpoConfig
from qwenops.alignment.measure_config import MeasureConfig
from qwenops.alignment.online.config import OnlineConfig, RewardSourceConfig
from qwenops.alignment.reward.config import RewardConfig
from qwenops.alignment.reward_model import load_reward_model
from qwenops.alignment.sft.config import SftConfig, qwen1_sft
from qwenops.alignment.sft.data import rows_per_batch, sft_batches
from qwenops.contracts.tokens import TokenIndex, TokenShards, write_index, write_shard
from qwenops.errors import ContractError, RecipeError
from qwenops.model.checkpoints import load_model
from qwenops.training.batching import Example
from qwenops.training.config import TrainingConfig
from qwenops.training.schedule import learning_rate

MEASURE = MeasureConfig(prompts=12, max_new_tokens=4)
FAST = TrainingConfig(
    steps=3, batch_tokens=512, learning_rate=1e-3, final_learning_rate=1e-4, warmup_steps=0, schedule="linear"
)


def sft_config(**changes):
    settings = {"training": FAST, "budget": "steps", "max_length_tokens": 256, "measure": MEASURE}
    return SftConfig(**(settings | changes))


def test_alignment_stages_run_one_after_the_other(artifacts, run_stage):
    measured = {"checkpoint": artifacts["base"], "demonstrations": artifacts["demonstrations"]}
    made = {"ranked": artifacts["ranked"], "synthesized": artifacts["synthesized"]}
    seed = run_stage("sft", sft_config(), measured, node="sft_seed")
    sft = run_stage("sft", sft_config(control="seed_data"), measured | made | {"checkpoint": seed.path})
    reward_config = RewardConfig(
        pretraining_pairs=8,
        pairs=8,
        pairs_per_step=4,
        quality_strategies=("ranked",),
        training=FAST,
        max_length_tokens=256,
    )
    reward = run_stage("reward", reward_config, made | {"checkpoint": sft.path})
    dpo_config = DpoConfig(
        training=FAST, budget="steps", pairs_per_step=4, control="chosen_only", measure=MEASURE, max_length_tokens=256
    )
    dpo = run_stage("dpo", dpo_config, measured | made | {"checkpoint": sft.path})
    online_config = OnlineConfig(
        episodes=1,
        prompts_per_episode=4,
        samples=2,
        pairs_per_step=2,
        training=FAST,
        max_new_tokens=4,
        reward=RewardSourceConfig(kind="sum"),
        compare_with="adamw",
        measure=MEASURE,
        max_length_tokens=256,
    )
    inputs = {
        "checkpoint": dpo.path,
        "base": artifacts["base"],
        "sft": sft.path,
        "reward": reward.path,
        "demonstrations": artifacts["demonstrations"],
    }
    online = run_stage("online", online_config, inputs)

    assert seed.manifest.counts["dropped"] == {"heldout": 12}
    assert sft.manifest.counts["kept"] == 40 + 6 + 6
    assert {"pass_rate", "control.pass_rate", "pass_rate.sampled"} <= set(sft.manifest.metrics)
    assert sft.manifest.metrics["pass_rate.prompts"] == 12
    assert reward.manifest.metrics["pair_accuracy.after_pretraining"] >= 0
    assert load_reward_model(reward.path).scale.deviation > 0
    curves = [json.loads(line) for line in (dpo.path / "curves.jsonl").read_text().splitlines()]
    at_start = {point["name"]: point["value"] for point in reversed(curves) if point["step"] == 0}
    assert at_start["loss.dpo"] == pytest.approx(0.693, abs=0.01)
    assert {"reward.first", "kl.final", "rollbacks", "adamw.pass_rate"} <= set(online.manifest.metrics)
    assert load_model(online.path).config.vocab_size == 320
    assert (online.path / "generation_config.json").exists()
    judged = json.loads((online.path / "online.json").read_text())
    assert [facts["episode"] for facts in judged["history"]] == [0, 1]


def test_ppo_runs_as_the_online_stage(artifacts, run_stage):
    again = FAST.model_copy(update={"recompute": "layers"})
    config = RewardConfig(pretraining="skip", pairs=4, pairs_per_step=4, training=again, max_length_tokens=256)
    reward = run_stage(
        "reward",
        config,
        {"checkpoint": artifacts["base"], "ranked": artifacts["ranked"], "synthesized": artifacts["synthesized"]},
    )
    online = OnlineConfig(
        algorithm="ppo",
        episodes=1,
        prompts_per_episode=4,
        samples=2,
        pairs_per_step=2,
        training=again,
        max_new_tokens=4,
        measure=MEASURE,
        max_length_tokens=256,
    )
    inputs = {name: artifacts["base"] for name in ("checkpoint", "base", "sft")}
    done = run_stage("online", online, inputs | {"reward": reward.path, "demonstrations": artifacts["demonstrations"]})
    assert done.manifest.metrics["kl.final"] >= 0


def test_sft_without_room_for_any_row_is_refused(artifacts, run_stage):
    inputs = {"checkpoint": artifacts["base"], "demonstrations": artifacts["demonstrations"]}
    with pytest.raises(ContractError, match="no demonstrations"):
        run_stage("sft", sft_config(max_length_tokens=16), inputs)


def test_sft_defaults_are_the_report_values():
    training = SftConfig().training.model_copy(update={"steps": 100})
    assert learning_rate(training, 0) == pytest.approx(7e-6)
    assert learning_rate(training, 99) == pytest.approx(7e-7, rel=0.01)
    assert (training.weight_decay, training.clip_norm) == (0.1, 1.0)
    assert (SftConfig().epochs, SftConfig().max_length_tokens) == (2, 32_768)


def test_qwen1_preset_warms_up_over_1430_steps():
    training = qwen1_sft().training
    assert learning_rate(training, 1429) == pytest.approx(2e-6)
    assert learning_rate(training, 714) == pytest.approx(1e-6, rel=0.01)
    assert training.steps == 4000


def test_reward_and_ppo_defaults_are_qwen1_values():
    reward, online = RewardConfig(), OnlineConfig()
    assert (reward.training.learning_rate, reward.pairs_per_step, reward.max_length_tokens) == (3e-6, 64, 2048)
    assert reward.training.schedule == "constant"
    ppo = online.ppo
    assert (ppo.value_warmup_steps, ppo.kl_coefficient, ppo.value_clip) == (50, 0.04, 0.15)
    assert (ppo.policy_learning_rate, ppo.value_learning_rate, online.top_p) == (1e-6, 5e-6, 0.9)


def test_text_to_replay_must_be_given(artifacts, run_stage):
    inputs = {"checkpoint": artifacts["base"], "demonstrations": artifacts["demonstrations"]}
    with pytest.raises(RecipeError, match="no text to replay"):
        run_stage("sft", sft_config(replay_share=0.5), inputs)


def test_small_share_of_replayed_text_is_one_row_and_a_step_of_one_row_has_no_room():
    assert rows_per_batch(sft_config(replay_share=0.25)) == (1, 1)
    with pytest.raises(ValueError, match="batch_tokens of at least"):
        SftConfig(replay_share=0.25, max_length_tokens=64, training=TrainingConfig(batch_tokens=64))


def test_replayed_text_is_as_many_rows_of_a_step_as_asked_for(artifacts, run_stage, tmp_path):
    rng = np.random.default_rng(0)
    facts = {
        "train-web": write_shard(tmp_path, "train-web", rng.integers(0, 200, (4, 900)), ["en"] * 4, 3600, "uint16")
    }
    write_index(tmp_path, TokenIndex(259, "uint16", 256, {"web": 1.0}, facts))
    inputs = {"checkpoint": artifacts["base"], "demonstrations": artifacts["demonstrations"]}
    config = sft_config(replay_share=0.5)  # batches of two rows
    done = run_stage("sft", config, inputs | {"tokens": publish(tmp_path, "tokens")})
    curves = [json.loads(line) for line in (done.path / "curves.jsonl").read_text().splitlines()]
    assert len([point for point in curves if point["name"] == "loss.replay.sft"]) == 3
    batch = next(
        sft_batches(byte_tokenizer(), [Example([1, 2, 3], [False, True, True])], config, 7, TokenShards(tmp_path))(0)
    )
    assert batch["replay"].tolist() == [False, True]
    assert batch["num_tokens"] == 3 + 256


def test_text_is_drawn_with_its_own_seed_so_two_stages_replay_other_text(tmp_path):
    rng = np.random.default_rng(0)
    facts = {
        "train-web": write_shard(tmp_path, "train-web", rng.integers(0, 200, (8, 900)), ["en"] * 8, 7200, "uint16")
    }
    write_index(tmp_path, TokenIndex(259, "uint16", 256, {"web": 1.0}, facts))
    examples = [Example([1, 2, 3], [False, True, True])]

    def drawn(text_seed: int):
        batches = sft_batches(
            byte_tokenizer(), examples, sft_config(replay_share=0.5), 7, TokenShards(tmp_path), text_seed
        )
        return next(batches(0))["input_ids"]

    assert (drawn(1)[0] == drawn(2)[0]).all()
    assert (drawn(1)[1] != drawn(2)[1]).any() and (drawn(1)[1] == drawn(1)[1]).all()
