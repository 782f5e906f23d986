import json

import pytest
from tests.delivery.artifacts import publish

from qwenops.delivery.register.config import RegisterConfig, Rule
from qwenops.delivery.register.gate import judge, passed
from qwenops.delivery.register.run import run
from qwenops.platform import registry
from qwenops.platform.context import RunContext
from qwenops.platform.stage import Stage

RULES = (Rule(figure="online.pass_rate", bound="at_least", value=-0.02, reference="dpo.pass_rate"),)


@pytest.mark.parametrize(("online", "verdict"), [(0.6, True), (0.59, True), (0.57, False)])
def test_gate_compares_two_nodes_with_a_margin(online, verdict):
    findings = judge(RegisterConfig(rules=RULES), {"online.pass_rate": online, "dpo.pass_rate": 0.6})
    assert passed(findings) is verdict
    assert f"{online:.4g}" in findings[0].sentence
    assert "dpo.pass_rate" in findings[0].sentence


def test_gate_star_takes_the_mean():
    rule = Rule(figure="safety.harmful_rate.*", bound="at_most", reference="safety.before.harmful_rate.*")
    figures = {
        "safety.harmful_rate.fraud.en": 0.4,
        "safety.harmful_rate.privacy.en": 0.0,
        "safety.before.harmful_rate.fraud.en": 0.1,
        "safety.before.harmful_rate.privacy.en": 0.5,
    }
    assert passed(judge(RegisterConfig(rules=(rule,)), figures))


@pytest.mark.parametrize(("missing", "verdict"), [("fail", False), ("skip", True)])
def test_gate_missing_figure_follows_the_config(missing, verdict):
    findings = judge(RegisterConfig(rules=RULES, missing=missing), {"dpo.pass_rate": 0.6})
    assert passed(findings) is verdict
    assert findings[0].sentence == "online.pass_rate was not measured"


def _register(tmp_path, name, online, uri):
    root = tmp_path / name
    model = publish(root / "export", "export", {"export.max_logit_difference": 0.0})
    nodes = {"online": {"pass_rate": online}, "dpo": {"pass_rate": 0.6}}
    paths = {node: publish(root / node, node, metrics) for node, metrics in nodes.items()}
    (root / "out").mkdir()
    context = RunContext(store=str(root), events=str(root), cache=str(root), tracking_uri=uri)
    stage = Stage("register", 7, context, root / "out", root / "scratch")
    run(RegisterConfig(rules=RULES), model=model, stage=stage, **paths)
    return stage, json.loads((root / "out" / "register.json").read_text())


def test_register_without_tracking_has_no_alias(tmp_path):
    stage, record = _register(tmp_path, "a", 0.7, "")
    assert record["passed"] is True
    assert record["alias"] is None
    assert stage.metrics["gate.passed"] == 1.0


def test_register_moves_champion_only_to_a_model_that_is_not_worse(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    _, first = _register(tmp_path, "a", 0.8, uri)
    failed_stage, failed = _register(tmp_path, "b", 0.5, uri)
    _, worse = _register(tmp_path, "c", 0.7, uri)
    assert (first["alias"], failed["alias"], worse["alias"]) == ("champion", "candidate", "candidate")
    assert failed["passed"] is False
    assert any("gate" in sentence for sentence in failed_stage.warnings)
    assert worse["passed"] is False
    assert "champion" in worse["reasons"][-1]
    assert registry.champion(uri, "qwenops-chat").number == "1"
    _, better = _register(tmp_path, "d", 0.8, uri)
    assert better["alias"] == "champion"
    version = registry.MlflowClient(uri).get_model_version_by_alias("qwenops-chat", "candidate")
    assert version.source.startswith("file://")
    assert version.tags["gate"] == "passed"
