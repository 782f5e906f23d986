import itertools

import pytest

from qwenops.training.config import TrainingConfig
from qwenops.training.schedule import learning_rate


def _config(schedule: str, **changes) -> TrainingConfig:
    base = {
        "steps": 100,
        "learning_rate": 7e-6,
        "final_learning_rate": 7e-7,
        "warmup_steps": 10,
        "schedule": schedule,
        "decay_share": 0.2,
    }
    return TrainingConfig(**{**base, **changes})


@pytest.mark.parametrize("schedule", ["wsd", "cosine", "linear"])
def test_rate_of_a_decaying_schedule_starts_at_the_peak_and_ends_at_the_final_rate(schedule):
    config = _config(schedule)
    rates = [learning_rate(config, step) for step in range(config.steps)]
    assert max(rates) == pytest.approx(7e-6)
    assert rates[9] == pytest.approx(7e-6)
    assert rates[0] == pytest.approx(7e-7)
    assert rates[-1] == pytest.approx(7e-7, rel=0.01)
    assert all(later <= earlier + 1e-15 for earlier, later in itertools.pairwise(rates[9:]))


def test_rate_of_wsd_stays_at_the_peak_until_the_decay():
    config = _config("wsd")
    assert {learning_rate(config, step) for step in range(10, 80)} == {7e-6}
    assert learning_rate(config, 90) < 7e-6


def test_rate_of_a_constant_schedule_never_falls():
    assert learning_rate(_config("constant"), 99) == 7e-6


def test_rate_without_warmup_begins_at_the_peak():
    assert learning_rate(_config("linear", warmup_steps=0), 0) == pytest.approx(7e-6)


def test_rate_of_a_single_step_is_finite():
    assert learning_rate(_config("cosine", steps=1, warmup_steps=0), 0) == pytest.approx(7e-7)
