"""Judge a run's figures by the rules: a verdict, a sentence per rule that holds and per figure that breaks one.

What was not measured does not pass: a pattern that fits nothing, a cell that its neighbours have, a figure that is no
number, and whatever rests on a judge who was not shown to judge.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from qwenops.delivery.gate_config import (
    CHAMPION,
    JUDGE,
    JUDGED,
    NotGated,
    Rule,
    fill_wildcards,
    judge_caveat,
    matches,
    wildcard_values,
)
from qwenops.delivery.register.config import RegisterConfig
from qwenops.delivery.register.policy import STRICT

# House choice: several figures are compared, so one in a hundred for each keeps an equal model from failing by any.
_ONE_IN = 100
_DEVIATIONS = NormalDist().inv_cdf(1 - 1 / _ONE_IN)
_WORDS = {"at_least": "at least", "at_most": "at most", "above": "above"}


@dataclass(frozen=True)
class Finding:
    """What one rule found.

    Attributes:
        rule: The rule.
        passed: Whether it holds.
        behind: Whether it holds for chance alone: the figure is behind, by no more than two equal models differ.
        sentence: What was expected and found, for the report and the registry.
    """

    rule: Rule
    passed: bool
    sentence: str
    behind: bool = False


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes:
        findings: One per rule that holds, one per figure that does not meet its rule.
        exceptions: A sentence per figure, or group of figures, that the strict policy does not judge here.
    """

    findings: tuple[Finding, ...]
    exceptions: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether all rules hold."""
        return all(finding.passed for finding in self.findings)

    @property
    def leads(self) -> bool:
        """Whether the model may be champion: all rules hold, none for chance alone, so that no series drifts down."""
        return self.passed and not any(finding.behind for finding in self.findings)

    @property
    def sentences(self) -> list[str]:
        """All sentences, the exceptions last."""
        return [*(finding.sentence for finding in self.findings), *self.exceptions]


def judge(config: RegisterConfig, figures: Mapping[str, float], champion: Mapping[str, float] | None = None) -> Verdict:
    """Apply the strict policy, less the recipe's exceptions, and the recipe's own rules.

    Args:
        config: Rules and exceptions of the recipe.
        figures: `<node>.<metric>` to value.
        champion: The present champion's figures; None when there is no champion, so that nothing is compared with it.
    """
    note = judge_caveat(figures)
    believed = {name: value for name, value in figures.items() if not (note and _rests_on_judge(name))}
    strict = _Gate(believed, champion, config.not_gated, note)
    findings = [finding for rule in STRICT for finding in strict.findings(rule)]
    own = _Gate(believed, champion, (), note)
    findings += [finding for rule in config.rules for finding in own.findings(rule)]
    findings += strict.not_numbers(figures)
    exceptions = tuple(f"{e.figure} is not gated by the strict policy: {e.why}" for e in config.not_gated)
    return Verdict(tuple(findings), exceptions)


def compared(config: RegisterConfig, figures: Mapping[str, float]) -> dict[str, float]:
    """The figures that a later model is compared with when this one is the champion."""
    rules = [rule for rule in (*STRICT, *config.rules) if rule.reference == CHAMPION]
    patterns = {pattern for rule in rules for pattern in (rule.figure, rule.sample) if pattern}
    return {name: value for name, value in figures.items() if any(matches(pattern, name) for pattern in patterns)}


def _rests_on_judge(name: str) -> bool:
    return matches(JUDGED, name) and name != JUDGE


@dataclass(frozen=True)
class _Gate:
    figures: Mapping[str, float]
    champion: Mapping[str, float] | None
    not_gated: Sequence[NotGated]
    note: str

    def findings(self, rule: Rule) -> list[Finding]:
        """One finding when `rule` holds, one for each figure that does not meet it, none when it does not apply."""
        if rule.reference == CHAMPION and self.champion is None:
            return []
        cells = self._cells(rule)
        gated = [name for name in cells if not self._excused(name)]
        if not cells and rule.reference != CHAMPION and not self._excused(rule.figure):
            return [Finding(rule, False, self._absent(rule.figure))]
        found = [self._finding(rule, name) for name in gated]
        broken = [finding for finding, _ in found if not finding.passed]
        behind = [finding for finding, _ in found if finding.behind]
        if broken or behind or not found:
            return broken + behind
        closest, _ = min(found, key=lambda pair: pair[1])
        more = f"; so are {len(found) - 1} more of {rule.figure}" if len(found) > 1 else ""
        return [Finding(rule, True, closest.sentence + more)]

    def not_numbers(self, figures: Mapping[str, float]) -> list[Finding]:
        """A finding for each figure of the run that is infinite or no number, judged by a rule or not."""
        return [
            Finding(Rule(figure=name, bound="at_least"), False, f"{name} is {value}, which is no measurement")
            for name, value in sorted(figures.items())
            if not math.isfinite(value) and not self._excused(name)
        ]

    def _cells(self, rule: Rule) -> list[str]:
        """Names of the figures that `rule` judges: those measured, and those that must have been."""
        own = {name for name in self.figures if matches(rule.figure, name) and not matches(rule.reference, name)}
        named = {pattern for pattern in (rule.cells, rule.reference) if "*" in pattern}
        own |= {
            fill_wildcards(rule.figure, wildcard_values(p, name))
            for p in named
            for name in self.figures
            if matches(p, name)
        }
        if rule.reference == CHAMPION:
            own |= {name for name in self.champion or {} if matches(rule.figure, name)}
        return sorted(own)

    def _finding(self, rule: Rule, name: str) -> tuple[Finding, float]:
        """The finding on one figure, and how far it is on the good side."""
        found, reference = self.figures.get(name), self._reference(rule, name)
        if found is None:
            return Finding(rule, False, self._absent(name)), -math.inf
        if reference is None:
            if rule.reference == CHAMPION:
                return Finding(rule, True, f"{name} has no counterpart in the present champion"), math.inf
            return Finding(rule, False, self._absent(self._reference_name(rule, name))), -math.inf
        wanted, chance = rule.factor * reference + rule.value, self._chance(rule, name, found, reference)
        bound = wanted + chance if rule.bound == "at_most" else wanted - chance
        room = bound - found if rule.bound == "at_most" else found - bound
        holds = room > 0 if rule.bound == "above" else room >= 0
        origin = _origin(rule) + (f", less {chance:.2g} for chance" if chance and not holds else "")
        verb = "is" if holds else "should be"
        sentence = f"{name} = {found:.4g} {verb} {_WORDS[rule.bound]} {bound if not holds else wanted:.4g}{origin}"
        behind = holds and room < chance
        if behind:
            by = f"by no more than chance ({chance:.2g}), so champion stays"
            sentence = f"{name} = {found:.4g} is behind {wanted:.4g}{origin} {by}"
        return Finding(rule, holds, sentence, behind), room

    def _chance(self, rule: Rule, name: str, found: float, reference: float) -> float:
        """How far two equal models' shares lie apart in one of `_ONE_IN` comparisons; 0 where none are counted.

        The two samples count as independent: models of two seeds are asked other questions.
        """
        counts = fill_wildcards(rule.sample, wildcard_values(rule.figure, name)) if rule.sample else ""
        own = self.figures.get(counts, 0.0)
        other = ((self.champion or {}) if rule.reference == CHAMPION else self.figures).get(counts, own)
        if not (own > 0 and other > 0 and 0 <= found <= 1 and 0 <= reference <= 1):
            return 0.0
        share = (own * found + other * reference) / (own + other)
        return _DEVIATIONS * math.sqrt(share * (1 - share) * (1 / own + 1 / other))

    def _reference(self, rule: Rule, name: str) -> float | None:
        if not rule.reference:
            return 0.0
        side = self.champion if rule.reference == CHAMPION else self.figures
        return (side or {}).get(self._reference_name(rule, name))

    def _reference_name(self, rule: Rule, name: str) -> str:
        return (
            name if rule.reference == CHAMPION else fill_wildcards(rule.reference, wildcard_values(rule.figure, name))
        )

    def _absent(self, name: str) -> str:
        return f"{name} was not measured{f': {self.note}' if self.note and _rests_on_judge(name) else ''}"

    def _excused(self, name: str) -> bool:
        return any(matches(exception.figure, name) for exception in self.not_gated)


def _origin(rule: Rule) -> str:
    if not rule.reference:
        return ""
    name = "the present champion's" if rule.reference == CHAMPION else rule.reference
    times = f" x {rule.factor:.4g}" if rule.factor != 1 else ""
    offset = f" {rule.value:+.4g}" if rule.value else ""
    return f" ({name}{times}{offset})"
