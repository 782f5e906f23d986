"""A running stage is scraped over HTTP, and the answer has the names the chart's alerts and dashboard use."""

import json
import math
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from tests.platform.servers import free_port

from qwenops.platform.context import RunContext
from qwenops.platform.observe.live import LIVE, read_live
from qwenops.platform.observe.observed import observe_stage
from qwenops.platform.observe.openmetrics import exporting
from qwenops.platform.stage.handle import Stage
from qwenops.recipe.account import account_text
from qwenops.recipe.placement import Placement, Resources
from qwenops.recipe.prices import Prices

LABELS = {"run": "night", "stage": "pretrain"}


@pytest.fixture
def context(tmp_path):
    priced = Placement(
        name="p",
        image="i",
        resources={"pretraining": Resources(cpu="10")},
        prices=Prices(currency="EUR", processor_hour=1.0),
        budget=250.0,
    )
    (tmp_path / "events").mkdir()
    return RunContext(
        store=str(tmp_path),
        events=str(tmp_path / "events"),
        cache=str(tmp_path),
        run_name="night",
        metrics_port=free_port(),
        account=account_text(priced),
    )


def _stage(context: RunContext, folder: Path) -> Stage:
    return Stage("pretrain", 1, context, folder, folder)


def _scrape(port: int) -> dict[str, float]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        assert "openmetrics-text" in answer.headers["Content-Type"]
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples]
    assert all(sample.labels == LABELS for sample in samples)
    return {sample.name: sample.value for sample in samples}


def test_scrape_of_a_training_stage_has_every_figure(context, tmp_path):
    facts = {"area": "pretraining", "run_started": 0.0, "run_finished": 3600.0}
    (tmp_path / "events" / "pretrain.json").write_text(json.dumps(facts))
    with observe_stage(context, "pretrain", tmp_path):
        stage = _stage(context, tmp_path)
        with stage.progress(1000, "tokens") as progress:
            progress.advance(500)
        stage = _stage(context, tmp_path)
        stage._live._state = read_live(tmp_path / LIVE)
        stage.curve("learning_rate", 6, 0.1)
        stage.curve("loss", 7, 2.5)
        found = _scrape(context.metrics_port)
    assert found["qwenops_stage_step"] in (6, 7)
    assert found["qwenops_stage_tokens_per_second"] > 0
    assert found["qwenops_stage_last_step_timestamp_seconds"] == pytest.approx((tmp_path / LIVE).stat().st_mtime, abs=5)
    assert (found["qwenops_run_cost"], found["qwenops_run_budget"]) == (10.0, 250.0)
    assert found["qwenops_stage_nonfinite_total"] == 0


def test_scrape_shows_a_loss_that_is_no_number_at_once(context, tmp_path):
    with observe_stage(context, "pretrain", tmp_path):
        stage = _stage(context, tmp_path)
        stage.curve("loss", 1, 2.0)
        stage.curve("loss", 2, math.nan)
        stage.curve("loss", 3, math.inf)
        found = _scrape(context.metrics_port)
    assert found["qwenops_stage_nonfinite_total"] == 2
    assert math.isinf(found["qwenops_stage_loss"])


def test_scrape_before_the_first_step_has_no_invented_value(context, tmp_path):
    with observe_stage(context, "pretrain", tmp_path):
        found = _scrape(context.metrics_port)
    assert set(found) == {"qwenops_stage_nonfinite_total", "qwenops_run_cost", "qwenops_run_budget"}


def test_launcher_reports_the_job_it_owns(tmp_path):
    port = free_port()
    with exporting(port, "night", lambda: ("pretrain", tmp_path), lambda: None) as job:
        job.terminal_timestamp, job.quota_held = 1234.5, True
        found = _scrape(port)
        job.quota_held = False
        released = _scrape(port)
    assert (found["qwenops_rayjob_terminal_timestamp_seconds"], found["qwenops_rayjob_quota_held"]) == (1234.5, 1)
    assert released["qwenops_rayjob_quota_held"] == 0


def test_worker_other_than_the_first_leaves_the_live_file_alone(context, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    _stage(context, tmp_path).curve("loss", 1, 2.0)
    assert not (tmp_path / LIVE).exists()


def test_port_that_is_taken_costs_the_stage_nothing(context, tmp_path):
    with observe_stage(context, "pretrain", tmp_path), observe_stage(context, "pretrain", tmp_path):
        assert "qwenops_run_cost" in _scrape(context.metrics_port)


def test_port_is_free_again_when_the_stage_ends(context, tmp_path):
    with observe_stage(context, "pretrain", tmp_path):
        _scrape(context.metrics_port)
    with pytest.raises(OSError):
        _scrape(context.metrics_port)


def test_laptop_writes_no_live_file(tmp_path):
    context = RunContext(store="", events="", cache="")
    with observe_stage(context, "pretrain", tmp_path):
        _stage(context, tmp_path).curve("loss", 1, 2.0)
    assert not (tmp_path / LIVE).exists()
