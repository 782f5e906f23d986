import itertools
import math

import pytest

from qwenops.alignment.sft.config import SftConfig
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


@pytest.mark.parametrize(
    ("schedule", "closed_form"),
    [
        ("linear", lambda step: 7e-6 - (7e-6 - 7e-7) * (step - 10) / 89),
        ("cosine", lambda step: 7e-7 + (7e-6 - 7e-7) * 0.5 * (1 + math.cos(math.pi * (step - 10) / 89))),
        ("wsd", lambda step: 7e-6 if step < 80 else 7e-6 - (7e-6 - 7e-7) * (step - 80) / 19),
        ("constant", lambda step: 7e-6),
    ],
)
def test_rate_of_every_step_is_the_closed_form(schedule, closed_form):
    config = _config(schedule)
    expected = [7e-6 * (step + 1) / 10 if step < 10 else closed_form(step) for step in range(100)]
    assert [learning_rate(config, step) for step in range(100)] == pytest.approx(expected, rel=1e-12)


def test_rate_of_the_reports_fine_tuning_falls_in_equal_steps_from_7e6_to_7e7():
    training = SftConfig().training
    rates = [learning_rate(training, step) for step in range(training.steps)]
    assert (rates[0], rates[-1]) == pytest.approx((7e-6, 7e-7), rel=1e-12)
    falls = [earlier - later for earlier, later in itertools.pairwise(rates)]
    assert falls == pytest.approx([6.3e-6 / (training.steps - 1)] * len(falls), rel=1e-6)
