"""Judge a run's figures by the rules: a verdict and one sentence for every rule, also for those that hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from qwenops.contracts.metrics import find_metric
from qwenops.delivery.register.config import RegisterConfig, Rule

_WORDS = {"at_least": "at least", "at_most": "at most"}


@dataclass(frozen=True)
class Finding:
    """What one rule found.

    Attributes:
        rule: The rule.
        passed: Whether it holds.
        sentence: What was expected and found, for the report and the registry.
    """

    rule: Rule
    passed: bool
    sentence: str


def judge(config: RegisterConfig, figures: Mapping[str, float]) -> list[Finding]:
    """Apply every rule of `config` to `figures` (`<node>.<metric>` to value)."""
    return [_judge_rule(rule, figures, config.missing) for rule in config.rules]


def passed(findings: Sequence[Finding]) -> bool:
    """Whether all rules hold."""
    return all(finding.passed for finding in findings)


def figure_value(name: str, figures: Mapping[str, float]) -> float | None:
    """The figure `name`, the mean of those that fit when it has a `*`, None when there is none."""
    fitting = [value for key, value in figures.items() if key == name or fnmatchcase(key, name)]
    return sum(fitting) / len(fitting) if fitting else None


def not_worse(config: RegisterConfig, figures: Mapping[str, float], champion: Mapping[str, float]) -> Finding:
    """Whether a candidate with `figures` may follow a champion with `champion`'s figures."""
    name = config.champion_figure
    metric = find_metric(name.split(".", 1)[-1])
    lower_is_better = metric is not None and metric.better == "lower"
    old = figure_value(name, champion)
    tolerance = config.champion_tolerance if lower_is_better else -config.champion_tolerance
    rule = Rule(figure=name, bound="at_most" if lower_is_better else "at_least", value=(old or 0.0) + tolerance)
    if old is None:
        return Finding(rule, True, f"the present champion was registered without {name}, so nothing is compared")
    finding = _judge_rule(rule, figures, "fail")
    return Finding(rule, finding.passed, f"{finding.sentence} (the present champion's, less the tolerance)")


def _judge_rule(rule: Rule, figures: Mapping[str, float], missing: str) -> Finding:
    found = figure_value(rule.figure, figures)
    reference = figure_value(rule.reference, figures) if rule.reference else 0.0
    if found is None or reference is None:
        absent = rule.figure if found is None else rule.reference
        return Finding(rule, missing == "skip", f"{absent} was not measured")
    bound = reference + rule.value
    holds = found >= bound if rule.bound == "at_least" else found <= bound
    offset = f" {rule.value:+.4g}" if rule.value else ""
    origin = f" ({rule.reference}{offset})" if rule.reference else ""
    verb = "is" if holds else "should be"
    sentence = f"{rule.figure} = {found:.4g} {verb} {_WORDS[rule.bound]} {bound:.4g}{origin}"
    return Finding(rule, holds, sentence)
