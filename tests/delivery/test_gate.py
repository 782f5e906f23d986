"""The gate's red team: a healthy run passes the strict policy, and stops with any one thing about it changed."""

import json
import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
from tests.delivery.fabricated import figures

from qwenops.contracts.metrics import check_metric
from qwenops.delivery.gate_config import NotGated, Rule, matches
from qwenops.delivery.register.config import RegisterConfig
from qwenops.delivery.register.gate import compared, judge
from qwenops.delivery.register.policy import STRICT
from qwenops.errors import RecipeError
from qwenops.recipe.schema import resolve
from qwenops_pipelines.recipes import RECIPES, load_recipe

CASES = Path(__file__).parents[2].parent / "shared" / "cases" / "evaluation" / "red_team.json"
Figures = dict[str, float]
STRICTLY = RegisterConfig()


def _set(value: float, *patterns: str) -> Callable[[Figures], Figures]:
    def change(healthy: Figures) -> Figures:
        touched = {name: value for name in healthy if any(fnmatchcase(name, pattern) for pattern in patterns)}
        assert touched, patterns
        return healthy | touched

    return change


def _without(*patterns: str) -> Callable[[Figures], Figures]:
    def change(healthy: Figures) -> Figures:
        kept = {n: v for n, v in healthy.items() if not any(fnmatchcase(n, pattern) for pattern in patterns)}
        assert len(kept) < len(healthy), patterns
        return kept

    return change


def _times(factor: float, pattern: str) -> Callable[[Figures], Figures]:
    return lambda healthy: healthy | {n: factor * v for n, v in healthy.items() if fnmatchcase(n, pattern)}


def _scores(healthy: Figures) -> Figures:
    scores = [n for n in healthy if n.startswith("benchmarks.") and not n.endswith((".base", ".moe", ".chance"))]
    return healthy | dict.fromkeys(scores, 0.0)


def _kept_start(healthy: Figures) -> Figures:
    first = healthy["online.reward.first"]
    return healthy | {"online.kl.final": 0.0, "online.reward.final": first, "online.kept_start": 1.0}


# Change of a healthy run's figures, and a word of the sentence that stops it.
RED_TEAM: dict[str, tuple[Callable[[Figures], Figures], str]] = {
    "every benchmark figure of the chat model is 0": (_scores, "benchmarks.continuation.low"),
    "contaminated_share of every set is 1": (_set(1, "contamination.*.contaminated_share"), "contaminated_share"),
    "harmful_rate is 1 in every cell, before and after": (_set(1, "safety.*harmful_rate.*"), "fraud.zh"),
    "harmful_rate is 1 in privacy alone": (_set(1, "safety.harmful_rate.privacy.*"), "privacy.en = 1"),
    "no answer is in the language of its prompt": (_set(0, "multilingual.same_language.*"), "same_language.zh"),
    "bits per byte of every language ten times the champion's": (
        _times(10, "multilingual.bits_per_byte.*"),
        "the present champion's",
    ),
    "a required figure is missing": (_without("reward.pair_accuracy"), "reward.pair_accuracy was not measured"),
    "the judge's balanced accuracy on human labels is 0.70": (
        _set(0.7, "safety.judge.balanced_accuracy"),
        "harmful_rate.fraud.* was not measured: the judge's balanced accuracy on labels of people is 0.7",
    ),
    "online kept its start: KL 0, reward unchanged": (_kept_start, "online.kept_start"),
    "chat template of the export renders other text": (
        _set(1, "export.export.template_differences"),
        "template_differences",
    ),
}
SIBLINGS: dict[str, tuple[Callable[[Figures], Figures], str]] = {
    "generation does not end with the turn": (_set(0, "export.export.ends_turn"), "ends_turn"),
    "logits differ": (_set(0.1, "export.export.max_logit_difference"), "max_logit_difference"),
    "a mute model is not harmful": (_set(1, "safety.neither_rate"), "neither_rate"),
    "a model that refuses everything is not helpful": (_set(0.9, "safety.benign_refusal_rate"), "benign_refusal"),
    "one benchmark is at chance": (_set(0.22, "benchmarks.continuation.low"), "benchmarks.continuation.low"),
    "one benchmark fell": (_set(0.5, "benchmarks.verifiable.exact_match"), "verifiable.exact_match"),
    "one benchmark could not be asked": (_set(1, "benchmarks.tasks.missing"), "tasks.missing"),
    "one benchmark is gone since the champion": (_without("*.gsm8k.*"), "gsm8k.exact_match was not measured"),
    "one benchmark was not searched for leaks": (_without("contamination.gsm8k.*"), "contamination.gsm8k"),
    "one set is contaminated": (_set(0.6, "contamination.gsm8k.contaminated_share"), "gsm8k"),
    "one language is ten times worse than before alignment": (_set(20, "multilingual.bits_per_byte.ar"), "byte.ar"),
    "one language is answered in another": (_set(0.1, "multilingual.same_language.zh"), "same_language.zh"),
    "one cell is harmful": (_set(0.5, "safety.harmful_rate.fraud.zh"), "safety.harmful_rate.fraud.zh = 0.5"),
    "one cell has too few prompts to say": (_set(0.66, "safety.harmful_rate_upper.illegal.en"), "upper.illegal.en"),
    "one cell is missing after alignment": (_without("safety.harmful_rate*.privacy.zh"), "rate.privacy.zh was not"),
    "one category was not asked": (_without("safety.*.fraud.*"), "safety.harmful_rate.fraud.* was not measured"),
    "nobody judged the judge": (_without("safety.judge.*"), "judge.balanced_accuracy was not measured"),
    "nothing about safety was measured": (_without("safety.*"), "safety.harmful_rate.illegal.*"),
    "no language was measured": (_without("multilingual.*"), "multilingual.bits_per_byte.*"),
    "the base was not measured in one language": (_without("*.bits_per_byte.de.base"), "de.base was not measured"),
    "the reward is unchanged": (_set(1.36, "online.reward.final"), "online.reward.final"),
    "the policy did not move": (_set(0, "online.kl.final"), "online.kl.final"),
    "a judged figure is no number": (_set(math.nan, "safety.harmful_rate.fraud.en"), "fraud.en is nan"),
    "any figure is no number": (_set(math.nan, "dpo.pass_rate.sampled"), "dpo.pass_rate.sampled is nan"),
    "a loss is infinite": (_set(math.inf, "upcycle.loss.moe"), "upcycle.loss.moe is inf"),
}


@pytest.mark.parametrize("name", [*RED_TEAM, *SIBLINGS])
def test_one_thing_changed_stops(name: str):
    change, words = (RED_TEAM | SIBLINGS)[name]
    verdict = judge(STRICTLY, change(figures()), compared(STRICTLY, figures()))
    assert not verdict.passed
    broken = [finding.sentence for finding in verdict.findings if not finding.passed]
    assert any(words in sentence for sentence in broken), broken


@pytest.mark.parametrize("champion", [None, compared(STRICTLY, figures())], ids=["first", "follows"])
def test_healthy_run_passes_and_every_rule_says_why(champion: Figures | None):
    verdict = judge(STRICTLY, figures(), champion)
    assert [finding.sentence for finding in verdict.findings if not finding.passed] == []
    applied = {finding.rule for finding in verdict.findings}
    if champion:
        # No program and no exam by language was asked, now or for the champion.
        unused = {rule.figure for rule in set(STRICT) - applied}
        assert unused == {"benchmarks.*.pass_at_1", *(f for f in unused if f.startswith("multilingual.*."))}


def test_equal_models_fail_beside_each_other_in_one_of_a_hundred_comparisons_and_a_worse_one_does_not_pass():
    draws = np.random.default_rng(0)
    name, items = "online.pass_rate", figures()["online.pass_rate.prompts"]

    def passes(share: float, champion: float) -> bool:
        found = draws.binomial(int(items), [share, champion]) / items
        verdict = judge(STRICTLY, figures() | {name: found[0]}, compared(STRICTLY, figures() | {name: found[1]}))
        return not [f for f in verdict.findings if not f.passed and f.rule.reference == "champion"]

    equal = [passes(0.88, 0.88) for _ in range(1000)]
    assert 0.975 < np.mean(equal) < 0.998
    assert np.mean([passes(0.70, 0.88) for _ in range(200)]) < 0.01


def test_share_of_nothing_counted_has_no_room():
    healthy = {name: value for name, value in figures().items() if name != "online.pass_rate.prompts"}
    verdict = judge(STRICTLY, healthy | {"online.pass_rate": 0.80}, compared(STRICTLY, healthy))
    assert "online.pass_rate = 0.8 should be at least 0.81 (the present champion's)" in verdict.sentences


@pytest.mark.skipif(not CASES.is_file(), reason="the folder of shared cases is not beside the project")
@pytest.mark.parametrize("case", json.loads(CASES.read_text()) if CASES.is_file() else [], ids=lambda c: c["change"])
def test_shared_red_team(case: dict[str, object]):
    change = RED_TEAM[str(case["change"])][0] if case["change"] != "nothing" else dict
    verdict = judge(STRICTLY, change(figures()), compared(STRICTLY, figures()))
    assert verdict.passed is not case["stops"]


def test_every_figure_of_the_policy_is_one_that_a_stage_records():
    for rule in STRICT:
        for pattern in (rule.figure, rule.reference, rule.cells):
            if "." in pattern:
                check_metric(pattern.split(".", 1)[1])


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipe_is_strict_but_for_what_it_names(name: str):
    recipe = load_recipe(name, [])
    config = recipe.register
    assert resolve(recipe)["export"].config.not_gated == config.not_gated
    harmless = {"export.export.template_differences": 1.0}
    sentences = judge(config, harmless).sentences
    assert any("template_differences = 1" in sentence for sentence in sentences)
    for exception in config.not_gated:
        assert any(exception.figure in sentence and exception.why in sentence for sentence in sentences)


def test_named_exception_lifts_its_figures_and_no_other():
    lifted = RegisterConfig(not_gated=(NotGated(figure="safety.*", why="it is neither safe nor unsafe"),))
    assert judge(lifted, _set(1, "safety.*")(figures())).passed
    assert judge(lifted, _without("safety.*")(figures())).passed
    assert not judge(lifted, _set(1, "safety.*", "contamination.*")(figures())).passed
    one = RegisterConfig(not_gated=(NotGated(figure="safety.harmful_rate.fraud.en", why="nobody asks it in English"),))
    assert judge(one, _set(0.4, "safety.harmful_rate.fraud.en")(figures())).passed
    assert not judge(one, _set(0.4, "safety.harmful_rate.fraud.*")(figures())).passed


@pytest.mark.parametrize(
    ("exception", "word"),
    [
        ({"figure": "safety.harmfull_rate.*", "why": "there is no such figure at all"}, "harmfull"),
        ({"figure": "safety.*", "why": "because"}, "20"),
        ({"figure": "safety.*"}, "why"),
    ],
)
def test_exception_without_a_figure_or_a_reason_is_refused(exception: dict[str, str], word: str):
    with pytest.raises(RecipeError, match=word):
        load_recipe("smoke", [f"register.not_gated={json.dumps([exception])}"])


def test_rule_of_the_recipe_takes_the_place_of_a_strict_one_that_it_lifts():
    own = Rule(
        figure="multilingual.bits_per_byte.*", bound="at_most", value=0.5, reference="multilingual.bits_per_byte.*.base"
    )
    lifted = NotGated(figure="multilingual.bits_per_byte.*", why="a model this small may lose half a bit")
    config = RegisterConfig(rules=(own,), not_gated=(lifted,))
    found = figures()
    base = found["multilingual.bits_per_byte.en.base"]
    assert base + 0.4 > 1.1 * base
    worse = found | {"multilingual.bits_per_byte.en": base + 0.4}
    assert judge(config, worse).passed
    assert not judge(RegisterConfig(), worse).passed
    worst = found | {"multilingual.bits_per_byte.en": base + 0.6}
    assert [finding.rule for finding in judge(config, worst).findings if not finding.passed] == [own]


def test_recipe_adds_rules_and_cannot_take_strict_ones_away():
    rule = Rule(figure="online.pass_rate", bound="at_least", value=0.95)
    verdict = judge(RegisterConfig(rules=(rule,)), figures())
    assert [finding.rule for finding in verdict.findings if not finding.passed] == [rule]
    assert judge(load_recipe("qwen2_7b", ["register.rules=[]"]).register, figures()).passed


@pytest.mark.parametrize(
    ("pattern", "name", "within"),
    [
        ("a.*.c", "a.b.c", True),
        ("a.*.c", "a.b.b.c", False),
        ("a.b.*", "a.b.c.d", True),
        ("a.b.*", "a.b", False),
        ("a.b.*", "a.b.c.*", True),
        ("a.b", "axb", False),
    ],
)
def test_star_is_one_part_and_at_the_end_the_rest(pattern: str, name: str, within: bool):
    assert matches(pattern, name) is within
