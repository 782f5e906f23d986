"""Figures and curves that are no finite numbers are no measurements: left out, and said."""

import json
import math

import pytest

from qwenops.platform.context import RunContext
from qwenops.platform.stage.curves import CURVES, add_point, publish_curves
from qwenops.platform.stage.handle import Stage


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
    publish_curves(stage.scratch, stage.out)
    # A strict reader of JSON takes every line.
    lines = [json.loads(line, parse_constant=pytest.fail) for line in (stage.out / CURVES).read_text().splitlines()]
    assert [(line["step"], line["value"]) for line in lines if line["name"] == "loss.dpo"] == [(0, 1.0), (3, 0.5)]
    assert len(lines) == 6
    assert [warning.split(" at step ")[0] for warning in stage.warnings] == ["the curve loss.dpo is nan"]


def test_curve_that_several_processes_drew_is_whole_with_each_step_once(tmp_path):
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    out.mkdir()
    for step in range(6):
        add_point(scratch, "loss", step, 1.0)
    with (scratch / CURVES).open("a") as stream:
        stream.write('\n{"name": "loss", "step": 6, "val')  # a kill in the middle of a line
    # The next process goes on from a checkpoint after step 3.
    for step in range(4, 8):
        add_point(scratch, "loss", step, 2.0)
        add_point(scratch, "rate", step, 0.5)
    publish_curves(scratch, out)
    points = [json.loads(line) for line in (out / CURVES).read_text().splitlines()]
    assert [(p["step"], p["value"]) for p in points if p["name"] == "loss"] == [
        *((step, 1.0) for step in range(4)),
        *((step, 2.0) for step in range(4, 8)),
    ]
    assert [p["step"] for p in points if p["name"] == "rate"] == [4, 5, 6, 7]


def test_stage_without_a_curve_publishes_none(tmp_path):
    publish_curves(tmp_path, tmp_path)
    assert not list(tmp_path.iterdir())
