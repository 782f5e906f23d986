"""Judge a run's figures by the rules: a verdict, a sentence per rule that holds and per figure that breaks one.

What was not measured does not pass: a pattern that fits nothing, a cell that its neighbours have, a figure that is no
number, and whatever rests on a judge who was not shown to judge.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qwenops.delivery.gate_config import CHAMPION, JUDGE, JUDGED, NotGated, Rule, fill, fits, mistrust, stars
from qwenops.delivery.register.config import RegisterConfig
from qwenops.delivery.register.policy import STRICT

_WORDS = {"at_least": "at least", "at_most": "at most", "above": "above"}


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
    note = mistrust(figures)
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
    patterns = [rule.figure for rule in (*STRICT, *config.rules) if rule.reference == CHAMPION]
    return {name: value for name, value in figures.items() if any(fits(pattern, name) for pattern in patterns)}


def _rests_on_judge(name: str) -> bool:
    return fits(JUDGED, name) and name != JUDGE


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
        if broken or not found:
            return broken
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
        own = {name for name in self.figures if fits(rule.figure, name) and not fits(rule.reference, name)}
        named = {pattern for pattern in (rule.cells, rule.reference) if "*" in pattern}
        own |= {fill(rule.figure, stars(p, name)) for p in named for name in self.figures if fits(p, name)}
        if rule.reference == CHAMPION:
            own |= {name for name in self.champion or {} if fits(rule.figure, name)}
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
        bound = rule.factor * reference + rule.value
        room = bound - found if rule.bound == "at_most" else found - bound
        holds = room > 0 if rule.bound == "above" else room >= 0
        verb = "is" if holds else "should be"
        return Finding(
            rule, holds, f"{name} = {found:.4g} {verb} {_WORDS[rule.bound]} {bound:.4g}{_origin(rule)}"
        ), room

    def _reference(self, rule: Rule, name: str) -> float | None:
        if not rule.reference:
            return 0.0
        side = self.champion if rule.reference == CHAMPION else self.figures
        return (side or {}).get(self._reference_name(rule, name))

    def _reference_name(self, rule: Rule, name: str) -> str:
        return name if rule.reference == CHAMPION else fill(rule.reference, stars(rule.figure, name))

    def _absent(self, name: str) -> str:
        return f"{name} was not measured{f': {self.note}' if self.note and _rests_on_judge(name) else ''}"

    def _excused(self, name: str) -> bool:
        return any(fits(exception.figure, name) for exception in self.not_gated)


def _origin(rule: Rule) -> str:
    if not rule.reference:
        return ""
    name = "the present champion's" if rule.reference == CHAMPION else rule.reference
    times = f" x {rule.factor:.4g}" if rule.factor != 1 else ""
    offset = f" {rule.value:+.4g}" if rule.value else ""
    return f" ({name}{times}{offset})"
