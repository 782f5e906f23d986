"""What the loop does about a bad step: skip, go back, stop."""

import math
from dataclasses import replace

import pytest
import torch
from tests.training.counting import number_batches, tiny_model

from qwenops.errors import StageError
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import FitCallbacks, fit
from qwenops.training.objective import language_modelling

CONFIG = TrainingConfig(
    steps=24,
    batch_tokens=64,
    learning_rate=1e-2,
    final_learning_rate=1e-3,
    warmup_steps=2,
    schedule="wsd",
    checkpoint_every_steps=4,
)


def scaled(factors):
    """The language-modelling objective whose loss at call n is multiplied by `factors.get(n, 1)`."""
    calls = 0

    def means(model, batch):
        nonlocal calls
        found, figures = language_modelling.means(model, batch)
        calls += 1
        return {"text": found["text"] * factors.get(calls - 1, 1.0)}, figures

    return replace(language_modelling, means=means)


def numbered(start):
    for step, batch in enumerate(number_batches(start), start):
        yield batch | {"documents": [100 + step]}


def test_one_bad_step_is_skipped_said_and_leaves_no_trace():
    events, steps = [], []
    hooks = FitCallbacks(on_event=events.append, on_step=lambda report: steps.append(report.step))
    model, without = tiny_model(), tiny_model()
    result = fit(model, scaled({5: math.nan}), number_batches, CONFIG, hooks=hooks)
    assert result.skipped == (5,)
    assert [math.isnan(loss) for loss in result.curve] == [step == 5 for step in range(24)]
    assert 5 not in steps
    assert len(steps) == 23
    assert ["step 5 was skipped" in event and "nan" in event for event in events] == [True]
    assert result.tokens == 23 * 64
    assert math.isfinite(result.final_loss)
    # The same loop in which step 5 has no gradient at all differs only by what the optimiser does with zeros.
    fit(without, scaled({}), number_batches, CONFIG)
    assert not all(torch.equal(a, b) for a, b in zip(model.parameters(), without.parameters(), strict=True))


def test_norm_far_above_the_recent_ones_is_skipped():
    config = CONFIG.model_copy(update={"skip_ratio": 20.0})
    result = fit(tiny_model(), scaled({18: 1000.0}), number_batches, config)
    assert result.skipped == (18,)


def test_series_of_bad_steps_goes_back_to_the_checkpoint_and_on_with_later_batches(tmp_path):
    events = []
    bad = {call: math.nan for call in range(10, 14)}
    config = CONFIG.model_copy(update={"max_skips": 3})
    seen = []

    def batches(start):
        for step, batch in enumerate(number_batches(start), start):
            seen.append(step)
            yield batch

    result = fit(
        tiny_model(), scaled(bad), batches, config, hooks=FitCallbacks(on_event=events.append), state_dir=tmp_path
    )
    assert result.rollbacks == 1
    assert result.skipped == (10, 11, 12, 13)
    assert seen == list(range(24))
    assert "weights of step 8 restored before step 14" in events[-1]
    assert [step for step, loss in enumerate(result.curve) if math.isnan(loss)] == list(range(8, 14))
    assert result.tokens == 20 * 64


def test_loop_that_went_back_and_was_interrupted_resumes_bitwise(tmp_path):
    def means(model, batch):
        found, figures = language_modelling.means(model, batch)
        return {"text": found["text"] * (math.nan if batch["documents"][0] in range(110, 114) else 1.0)}, figures

    poisoned = replace(language_modelling, means=means)

    def stop(report):
        if report.step == 17:
            raise KeyboardInterrupt

    whole, broken, resumed = tiny_model(), tiny_model(), tiny_model()
    fit(whole, poisoned, numbered, CONFIG, state_dir=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(broken, poisoned, numbered, CONFIG, hooks=FitCallbacks(on_step=stop), state_dir=tmp_path / "cut")
    result = fit(resumed, poisoned, numbered, CONFIG, state_dir=tmp_path / "cut")
    assert result.rollbacks == 1
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_loop_that_stays_broken_names_step_rank_and_documents(tmp_path):
    bad = {call: math.nan for call in range(10, 99)}
    with pytest.raises(StageError, match=r"broke at step 21[\s\S]*nan[\s\S]*rank 0: documents 121"):
        fit(tiny_model(), scaled(bad), numbered, CONFIG, state_dir=tmp_path)


def test_loop_without_checkpoints_stops_after_the_allowed_skips():
    bad = {call: math.inf for call in range(3, 99)}
    with pytest.raises(StageError, match=r"broke at step 6[\s\S]*rank 0: rows that begin with tokens"):
        fit(tiny_model(), scaled(bad), number_batches, CONFIG)


def test_divergence_goes_back_before_it_stops(tmp_path):
    events = []
    config = CONFIG.model_copy(update={"steps": 40})
    high = {call: 50.0 for call in (20, 21)}
    hooks = FitCallbacks(on_event=events.append)
    result = fit(tiny_model(), scaled(high), number_batches, config, hooks=hooks, state_dir=tmp_path)
    assert result.rollbacks >= 1
    assert result.steps == 40
    assert "over the last 8 steps" in events[0]


def test_loss_that_explodes_without_a_checkpoint_names_the_step_and_the_rate():
    high = {call: 50.0 for call in range(8, 99)}
    with pytest.raises(StageError, match=r"diverged at step 15[\s\S]*learning rate"):
        fit(tiny_model(), scaled(high), number_batches, CONFIG)
