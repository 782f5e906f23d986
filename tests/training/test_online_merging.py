import copy

import pytest
import torch
from torch import nn

from qwenops.errors import RecipeError
from qwenops.training.online_merging import (
    OnlineMergingOptimizer,
    direction_from,
    keep_largest,
    keep_random,
    resolve_signs,
)


def two_layers(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))


def train(model, optimizer, steps=5):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(6, 8, generator=generator)).square().mean().backward()
        optimizer.step()


def merging(model, direction_value=0.5, **settings):
    directions = {parameter: torch.full_like(parameter, direction_value) for parameter in model.parameters()}
    settings = {"learning_rate": 1e-2, "weight_decay": 0.1, "merge_weight": 0.0, "keep": 1.0} | settings
    return OnlineMergingOptimizer(model.parameters(), directions, **settings)


def adamw(model, **settings):
    return torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1, foreach=False, fused=False, **settings)


def test_merging_with_no_weight_and_all_kept_is_adamw_bit_for_bit():
    ours, theirs = two_layers(), two_layers()
    train(ours, merging(ours))
    train(theirs, adamw(theirs))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_dare_with_no_weight_leaves_exactly_the_masked_entries():
    model, plain = two_layers(), two_layers()
    before = copy.deepcopy(model)
    train(model, merging(model, keep=0.5, rescale="no", weight_decay=0.0), steps=1)
    train(plain, merging(plain, weight_decay=0.0), steps=1)
    kept = [a != b for a, b in zip(model.parameters(), before.parameters(), strict=True)]
    for mask, after, full, start in zip(kept, model.parameters(), plain.parameters(), before.parameters(), strict=True):
        assert torch.equal(after, torch.where(mask, full, start))
    share = sum(int(mask.sum()) for mask in kept) / sum(mask.numel() for mask in kept)
    assert 0.35 < share < 0.65


def test_dare_with_all_kept_moves_by_the_weighted_sum():
    model, plain = two_layers(), two_layers()
    before = copy.deepcopy(model)
    train(model, merging(model, merge_weight=0.3, weight_decay=0.0), steps=1)
    train(plain, merging(plain, weight_decay=0.0), steps=1)
    for after, full, start in zip(model.parameters(), plain.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(after - start, 0.7 * (full - start) + 0.3 * 0.5, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("keep", [0.01, 0.3, 0.9])
def test_random_keep_rate_lies_within_three_sigma(keep):
    entries = torch.ones(200_000)
    sparse = keep_random(entries, keep, torch.Generator().manual_seed(3))
    sigma = (keep * (1 - keep) / entries.numel()) ** 0.5
    assert abs(float(sparse.mean()) - keep) < 3 * sigma
    assert set(sparse.unique().tolist()) == {0.0, 1.0}


def test_random_keep_with_rescaling_divides_the_kept_by_the_share():
    sparse = keep_random(torch.ones(1000), 0.25, torch.Generator().manual_seed(3), rescale=True)
    assert set(sparse.unique().tolist()) == {0.0, 4.0}


def test_largest_keep_takes_the_top_share_by_magnitude():
    assert keep_largest(torch.tensor([[1.0, -5.0], [3.0, -2.0]]), 0.5).tolist() == [[0.0, -5.0], [3.0, 0.0]]


def test_sign_resolution_follows_the_truth_table():
    first = torch.tensor([1.0, -1.0, 2.0, -1.0, 0.0, 3.0, 0.0])
    second = torch.tensor([2.0, -2.0, -1.0, 2.0, -4.0, 0.0, 0.0])
    assert resolve_signs(first, second).tolist() == [3.0, -3.0, 2.0, 2.0, -4.0, 3.0, 0.0]


def test_ties_weights_before_it_compares_magnitudes():
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.ones(1)
    optimizer = OnlineMergingOptimizer(
        [parameter], {parameter: torch.tensor([100.0])}, learning_rate=1.0, merge="ties", merge_weight=1e-4, keep=1.0
    )
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([-(1 - 1e-4)]))


@pytest.mark.parametrize("merge", ["dare", "ties"])
def test_zero_gradient_moves_only_along_the_direction(merge):
    model = two_layers()
    before = copy.deepcopy(model)
    optimizer = merging(model, merge=merge, merge_weight=0.01, weight_decay=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for after, start in zip(model.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(after - start, torch.full_like(start, 0.01 * 0.5))


def test_merging_every_third_step_with_no_weight_is_adamw_after_three_steps():
    ours, theirs = two_layers(), two_layers()
    train(ours, merging(ours, merge_every=3), steps=3)
    train(theirs, adamw(theirs), steps=3)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_merging_every_third_step_masks_the_accumulated_update_once():
    model = two_layers()
    before = copy.deepcopy(model)
    optimizer = merging(model, merge_every=3, keep=0.5, rescale="no", weight_decay=0.0)
    train(model, optimizer, steps=2)
    assert all((a != b).all() for a, b in zip(model.parameters(), before.parameters(), strict=True))
    train(model, optimizer, steps=1)
    pairs = zip(model.parameters(), before.parameters(), strict=True)
    returned = torch.cat([torch.isclose(a, b, atol=1e-7).flatten() for a, b in pairs])
    assert 0.3 < float(returned.float().mean()) < 0.7


def test_every_parameter_moves_on_every_step():
    model = two_layers()
    optimizer = merging(model, merge_every=3)
    for _ in range(4):
        before = copy.deepcopy(model)
        train(model, optimizer, steps=1)
        assert all(not torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))


def test_state_round_trip_keeps_directions_and_continues_alike():
    settings = {"merge_weight": 0.01, "keep": 0.5, "merge_every": 2}
    whole = two_layers()
    first = merging(whole, **settings)
    train(whole, first, steps=3)
    resumed = copy.deepcopy(whole)
    second = merging(resumed, direction_value=0.0, **settings)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(whole, first, steps=3)
    train(resumed, second, steps=3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert all(float(state["direction"].mean()) == 0.5 for state in second.state.values())


def test_direction_is_reference_minus_base_and_refuses_other_shapes():
    model, base = two_layers(0), two_layers(1).state_dict()
    directions = direction_from(model, base, model.state_dict())
    assert torch.equal(directions[model[0].bias], model[0].bias - base["0.bias"])
    with pytest.raises(RecipeError, match=r"0\.weight"):
        direction_from(model, base | {"0.weight": torch.zeros(2, 2)}, base)


def test_numbers_outside_their_range_are_refused():
    with pytest.raises(RecipeError, match="merging optimizer"):
        merging(two_layers(), keep=0.0)
