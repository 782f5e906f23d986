"""Intervals and tests against values computed by hand or printed in textbooks."""

import pytest

from qwenops.evaluation.statistics import mcnemar_p, two_proportion_p, wilson


def test_wilson_of_no_success_in_ten_reaches_to_28_percent():
    share = wilson(0, 10)
    assert (share.value, share.low) == (0.0, 0.0)
    assert share.high == pytest.approx(0.2775, abs=1e-4)


def test_wilson_of_a_half_is_symmetric():
    share = wilson(50, 100)
    assert (share.low, share.high) == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_wilson_of_nothing_is_no_knowledge():
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


def test_two_proportions_that_differ_clearly_have_a_small_p():
    assert two_proportion_p(15, 100, 30, 100) == pytest.approx(0.0112, abs=2e-4)


def test_two_equal_or_empty_proportions_have_p_one():
    assert two_proportion_p(0, 10, 0, 20) == 1.0
    assert two_proportion_p(0, 0, 5, 20) == 1.0


def test_mcnemar_looks_only_at_disagreements():
    first = [True] * 8 + [False] * 2 + [True] * 90
    second = [False] * 8 + [True] * 2 + [True] * 90
    assert mcnemar_p(first, second) == pytest.approx(0.1094, abs=1e-4)
    assert mcnemar_p([True] * 5, [True] * 5) == 1.0
