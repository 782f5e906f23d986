"""Curves of a stage that is killed and goes on are those of one process: no step is missing, none doubled."""

import pytest
from tests.platform.killing import killed_after, steps_of
from tests.pretraining.corpus import EXTEND, PRETRAIN, TRAINING

from qwenops.model.sizes import Experts
from qwenops.pretraining.upcycle.config import UpcycleConfig

STEPS = list(range(TRAINING.steps))
UPCYCLE = UpcycleConfig(
    experts=Experts(num_experts=4, num_active=2, expert_width=16, shared_width=48),
    length=64,
    training=TRAINING,
    heldout_tokens=256,
)


def test_curves_of_pretrain_killed_twice_are_whole(run_stage, artifacts, pretrained):
    for step in (3, 8):
        killed_after("learning_rate", step, run_stage, "pretrain", PRETRAIN, artifacts)
    found = steps_of(run_stage("pretrain", PRETRAIN, artifacts).path)
    assert found == steps_of(pretrained.path)
    assert all(found[name] == STEPS for name in ("loss", "learning_rate", "gradient_norm", "tokens_per_second"))


def test_curves_of_extend_are_whole(run_stage, artifacts, pretrained):
    inputs = {**artifacts, "checkpoint": pretrained.path}
    killed_after("loss", 7, run_stage, "extend", EXTEND, inputs)
    found = steps_of(run_stage("extend", EXTEND, inputs).path)
    assert all(found[name] == STEPS for name in ("loss", "learning_rate", "gradient_norm", "tokens_per_second"))
    positions = [name for name in found if name.startswith("position_loss.")]
    assert len(positions) == 3
    assert all(len(found[name]) == len(set(found[name])) == 32 for name in positions)


@pytest.mark.parametrize("arm", ["moe", "dense"])
def test_curves_of_upcycle_are_whole_in_both_arms(run_stage, artifacts, pretrained, arm):
    inputs = {**artifacts, "checkpoint": pretrained.path}
    killed_after(f"loss.{arm}", 7, run_stage, "upcycle", UPCYCLE, inputs)
    found = steps_of(run_stage("upcycle", UPCYCLE, inputs).path)
    assert set(found) == {f"{name}.{kind}" for name in ("loss", "tokens_per_second") for kind in ("moe", "dense")}
    assert all(steps == STEPS for steps in found.values())
