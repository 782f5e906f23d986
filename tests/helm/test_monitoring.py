"""Alerts and the dashboard speak of the metrics that runs export, and the README is fresh."""

import json
import re
import subprocess
import sys

import yaml
from tests.helm.chart import CHART, ROOT, of_kind

METRICS = {
    "qwenops_stage_last_step_timestamp_seconds",
    "qwenops_stage_step",
    "qwenops_stage_loss",
    "qwenops_stage_tokens_per_second",
    "qwenops_stage_nonfinite_total",
    "qwenops_run_cost",
    "qwenops_run_budget",
    "qwenops_rayjob_terminal_timestamp_seconds",
    "qwenops_rayjob_quota_held",
}


def dashboard(render) -> dict:
    """The dashboard that Grafana is given."""
    (item,) = (item for item in of_kind(render(), "ConfigMap") if item["metadata"]["name"] == "qwenops-dashboard")
    return json.loads(item["data"]["qwenops.json"])


def test_dashboard_shows_every_metric_but_the_end_of_jobs(render):
    expressions = " ".join(target["expr"] for panel in dashboard(render)["panels"] for target in panel["targets"])
    shown = set(re.findall(r"qwenops_\w+", expressions))
    assert shown == METRICS - {"qwenops_rayjob_terminal_timestamp_seconds"}


def test_dashboard_panels_do_not_overlap(render):
    cells = [
        (x, y)
        for panel in dashboard(render)["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_dashboard_is_found_by_its_label(render):
    (item,) = (item for item in of_kind(render(), "ConfigMap") if item["metadata"]["name"] == "qwenops-dashboard")
    assert item["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_alerts_cover_stall_nan_held_quota_and_budget(render):
    (rule,) = of_kind(render("gpu"), "PrometheusRule")
    alerts = {item["alert"]: item for group in rule["spec"]["groups"] for item in group["rules"]}
    assert set(alerts) == {
        "QwenopsStageStalled",
        "QwenopsLossNotFinite",
        "QwenopsQuotaHeld",
        "QwenopsCostOverBudget",
    }
    for alert in alerts.values():
        named = set(re.findall(r"qwenops_\w+", alert["expr"]))
        assert named
        assert named <= METRICS
        assert len(re.findall(r'namespace="research"', alert["expr"])) == len(
            re.findall(r"qwenops_\w+\{", alert["expr"])
        )
        assert alert["expr"].count("(") == alert["expr"].count(")")
        assert "{{ $labels." in alert["annotations"]["summary"]
        assert alert["annotations"]["action"]


def test_alert_limits_come_from_the_values(render):
    (rule,) = of_kind(render("gpu", monitoring__rules__stalledSeconds=77), "PrometheusRule")
    assert rule["spec"]["groups"][0]["rules"][0]["expr"].endswith("> 77")


def test_readme_is_fresh():
    done = subprocess.run(
        [sys.executable, str(ROOT / "infra" / "ci" / "chart_readme.py"), "--check"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_readme_lists_every_value():
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    for part, values in defaults.items():
        assert f"| `{part}" in readme
        for key in values if isinstance(values, dict) else []:
            assert f"| `{part}.{key}" in readme


def test_notes_name_what_a_placement_needs(chart):
    done = chart.run(
        "template", "qwenops", str(CHART), "--namespace", "research", "--show-only", "templates/mlflow.yaml"
    )
    assert done.returncode == 0
    text = (CHART / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    for needed in ("service account of steps", "tracking URI", "volume claim", "keys of the bucket", "helm test"):
        assert needed in text
