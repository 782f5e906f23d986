"""Figures and curves that are no finite numbers are no measurements: left out, and said."""

import json
import math

import pytest

from qwenops.platform.context import RunContext
from qwenops.platform.stage.handle import CURVES, Stage


@pytest.fixture
def stage(tmp_path):
    return Stage("toy", 1, RunContext(str(tmp_path), str(tmp_path), str(tmp_path)), tmp_path, tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_metric_that_is_no_finite_number_is_left_out_with_a_warning(stage, value):
    stage.metric("loss.first", 2.0)
    stage.metric("loss.final", value)
    assert stage.metrics == {"loss.first": 2.0}
    assert stage.warnings == [f"loss.final is {value}, no finite number, and is left out"]


def test_points_that_are_no_finite_numbers_are_left_out_with_one_warning_a_curve(stage):
    for step, value in enumerate([1.0, math.nan, math.inf, 0.5]):
        stage.curve("loss.dpo", step, value)
        stage.curve("margin.dpo", step, float(step))
    # A strict reader of JSON takes every line.
    lines = [json.loads(line, parse_constant=pytest.fail) for line in (stage.out / CURVES).read_text().splitlines()]
    assert [(line["step"], line["value"]) for line in lines if line["name"] == "loss.dpo"] == [(0, 1.0), (3, 0.5)]
    assert len(lines) == 6
    assert [warning.split(" at step ")[0] for warning in stage.warnings] == ["the curve loss.dpo is nan"]
