"""The Online Merging Optimizer against its formulas in numpy, and how far it goes beside AdamW.

The yardstick is Adam of Kingma and Ba and OnDARE of Lu et al. with the 1/p of dropout, written here from definitions in
float64; only which entries were kept is read off the run.
"""

import numpy as np
import pytest
import torch
from torch import nn

from qwenops.training.online_merging import OnlineMergingOptimizer

STEPS, SIZE = 300, 20_000


def gradients(step):
    """A drift that differs by entry, and noise: some entries go their way and others wander."""
    draw = np.random.default_rng((11, step))
    return np.linspace(-1, 1, SIZE) + draw.normal(size=SIZE)


def adam_updates(rate=1e-6, first=0.9, second=0.999, epsilon=1e-8):
    """Adam's update of every step, [STEPS, SIZE]; it depends on the gradients alone."""
    mean, square, updates = np.zeros(SIZE), np.zeros(SIZE), []
    for step in range(1, STEPS + 1):
        gradient = gradients(step)
        mean = first * mean + (1 - first) * gradient
        square = second * square + (1 - second) * gradient**2
        root = np.sqrt(square / (1 - second**step)) + epsilon
        updates.append(-rate * mean / (1 - first**step) / root)
    return np.array(updates)


def moves(direction, **settings):
    """What every step of the optimizer added to weights that begin at 0, float64 [STEPS, SIZE]."""
    parameter = nn.Parameter(torch.zeros(SIZE, dtype=torch.float64))
    optimizer = OnlineMergingOptimizer([parameter], {parameter: torch.from_numpy(direction)}, **settings)
    before, found = parameter.detach().clone(), []
    for step in range(1, STEPS + 1):
        parameter.grad = torch.from_numpy(gradients(step))
        optimizer.step()
        found.append((parameter.detach() - before).numpy())
        before = parameter.detach().clone()
    return np.array(found)


def test_released_values_go_as_far_as_adamw_over_300_steps():
    tau = np.random.default_rng(0).normal(size=SIZE) * 1e-3
    found, adam = moves(tau), adam_updates()
    assert np.abs(found).sum() / np.abs(adam).sum() == pytest.approx(1, abs=0.05)
    way, expected = found.sum(0), adam.sum(0)
    assert way @ expected / (expected @ expected) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("rescale", "factor"), [("yes", 100.0), ("no", 1.0)])
def test_kept_entries_follow_the_formula_and_the_others_stay(rescale, factor):
    found, adam = moves(np.zeros(SIZE), rescale=rescale), adam_updates()
    kept = found != 0
    assert kept.mean() == pytest.approx(0.01, abs=3 * (0.01 * 0.99 / found.size) ** 0.5)
    np.testing.assert_allclose(found, np.where(kept, (1 - 1e-7) * adam * factor, 0), rtol=1e-9, atol=1e-18)
    # Every step draws anew: no entry is kept much more often than the others.
    assert kept.sum(0).max() < 20


@pytest.mark.parametrize(("rescale", "factor"), [("yes", 4.0), ("no", 1.0)])
def test_update_and_direction_are_merged_by_their_weights(rescale, factor):
    tau = np.random.default_rng(0).normal(size=SIZE)
    found, adam = moves(tau, merge_weight=0.3, keep=0.25, rescale=rescale, learning_rate=1.0), adam_updates(rate=1.0)
    # Each entry is the kept or the dropped update plus the kept or the dropped direction.
    options = np.stack([0.7 * factor * u * adam + 0.3 * factor * t * tau for u in (0, 1) for t in (0, 1)])
    distance = np.abs(found - options)
    assert distance.min(0).max() < 1e-9
    shares = [(distance.argmin(0) == option).mean() for option in range(4)]
    assert shares == pytest.approx([0.75**2, 0.75 * 0.25, 0.75 * 0.25, 0.25**2], abs=0.005)


def test_all_kept_is_the_weighted_sum_itself():
    tau = np.random.default_rng(0).normal(size=SIZE)
    found = moves(tau, merge_weight=0.3, keep=1.0, learning_rate=1e-2)
    np.testing.assert_allclose(found, 0.7 * adam_updates(rate=1e-2) + 0.3 * tau, rtol=1e-9, atol=1e-12)


def test_ties_keeps_the_largest_entries_as_they_are():
    found, adam = moves(np.zeros(SIZE), merge="ties"), adam_updates()
    kept = found != 0
    assert (kept.sum(1) == SIZE // 100).all()
    np.testing.assert_allclose(found[kept], (1 - 1e-7) * adam[kept], rtol=1e-9)
    least = np.where(kept, np.abs(adam), np.inf).min(1)
    most = np.where(kept, 0, np.abs(adam)).max(1)
    assert (least >= most).all()
