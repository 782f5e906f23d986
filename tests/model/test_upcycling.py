import pytest
import torch
from tests.model.small import apply_feed_forward, feed_forward, logits, random_ids, small_model

from qwenops.errors import RecipeError
from qwenops.model.sizes import Experts
from qwenops.model.upcycling import FeedForward, Upcycling, neurons_of_experts, num_copies, reinitialize, upcycle

# (experts, expert width, dense width): one copy, exact copies, hE not dividing F, experts that straddle copies.
LAYOUTS = [(2, 4, 20), (10, 4, 20), (8, 6, 20), (7, 9, 20), (1, 26, 20)]


def neurons(weights: FeedForward) -> torch.Tensor:
    """Each neuron's triple (gate row, up row, down column) as one row, [neurons, 3 * hidden]."""
    triples = torch.cat((weights.gate, weights.up, weights.down.mT), dim=-1)
    return triples.reshape(-1, triples.shape[-1])


def sources(experts: FeedForward, dense: FeedForward) -> torch.Tensor:
    """Index of the dense neuron each expert neuron equals, -1 for none."""
    equal = (neurons(experts)[:, None] == neurons(dense)).all(-1)
    return torch.where(equal.any(1), equal.int().argmax(1), -1)


def slice_experts(dense, num_experts, width, *, seed, layer):
    return dense.take(neurons_of_experts(num_experts, width, dense.gate.shape[0], seed=seed, layer=layer))


def reinitialize_all(experts, ratio, *, granularity, source):
    layout = Experts(num_experts=8, num_active=1, expert_width=1, shared_width=1)
    how = Upcycling(layout, ratio, granularity, seed=3)
    each = [FeedForward(experts.gate[e], experts.up[e], experts.down[e]) for e in range(len(experts.gate))]
    drawn = [reinitialize(expert, how, source.spread, layer=0, index=index) for index, expert in enumerate(each)]
    return FeedForward(*(torch.stack([getattr(e, name) for e in drawn]) for name in ("gate", "up", "down")))


def test_published_layouts_need_the_published_numbers_of_copies():
    assert num_copies(64, 2560, 18_944) == 9
    assert num_copies(60, 1408, 5504) == 16


@pytest.mark.parametrize(("num_experts", "width", "dense_width"), LAYOUTS)
def test_sliced_experts_hold_every_dense_neuron_equally_often(num_experts, width, dense_width):
    dense = feed_forward(dense_width)
    experts = slice_experts(dense, num_experts, width, seed=3, layer=0)
    assert experts.gate.shape == experts.up.shape == (num_experts, width, 8)
    assert experts.down.shape == (num_experts, 8, width)
    found = sources(experts, dense)
    assert (found >= 0).all()
    copies = num_copies(num_experts, width, dense_width)
    assert 0 <= copies * dense_width - num_experts * width < dense_width
    assert set(torch.bincount(found, minlength=dense_width).tolist()) <= {copies - 1, copies}


def test_experts_of_whole_copies_sum_to_the_dense_output():
    # Fails when a permutation reaches only two of the three matrices.
    dense, x = feed_forward(20), torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    experts = slice_experts(dense, 8, 5, seed=3, layer=0)
    summed = apply_feed_forward(experts, x).sum(0)
    torch.testing.assert_close(summed, 2 * apply_feed_forward(dense, x), rtol=1e-5, atol=1e-4)


def test_copies_and_layers_have_orders_of_their_own():
    dense = feed_forward(20)
    first, second = (sources(slice_experts(dense, 2, 20, seed=3, layer=layer), dense) for layer in (0, 1))
    assert not torch.equal(first[:20], first[20:])
    assert not torch.equal(first, second)
    assert torch.equal(first, sources(slice_experts(dense, 2, 20, seed=3, layer=0), dense))


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 1.0])
def test_neuron_reinitialisation_is_exact_in_every_expert(ratio):
    dense = feed_forward(20)
    sliced = slice_experts(dense, 6, 10, seed=3, layer=0)
    experts = reinitialize_all(sliced, ratio, granularity="neuron", source=dense)
    fresh = (sources(experts, dense) < 0).view(6, 10)
    assert (fresh.sum(1) == round(ratio * 10)).all()
    for kept, before in ((experts.gate, sliced.gate), (experts.up, sliced.up), (experts.down.mT, sliced.down.mT)):
        assert torch.equal(kept[~fresh], before[~fresh])
        assert (kept[fresh] != before[fresh]).all()


def test_weight_reinitialisation_is_exact_in_every_matrix():
    dense = feed_forward(20)
    sliced = slice_experts(dense, 6, 10, seed=3, layer=0)
    experts = reinitialize_all(sliced, 0.5, granularity="weight", source=dense)
    for after, before in ((experts.gate, sliced.gate), (experts.up, sliced.up), (experts.down, sliced.down)):
        assert ((after != before).flatten(1).sum(1) == 40).all()


def test_fresh_weights_have_the_spread_of_their_source():
    dense = feed_forward(400, hidden=32)
    dense = FeedForward(dense.gate, 3 * dense.up, dense.down / 5)
    experts = reinitialize_all(slice_experts(dense, 4, 200, seed=3, layer=0), 1.0, granularity="neuron", source=dense)
    for fresh, source in ((experts.gate, dense.gate), (experts.up, dense.up), (experts.down, dense.down)):
        assert float(fresh.std()) == pytest.approx(float(source.std()), rel=0.03)


def test_upcycled_model_copies_everything_outside_the_feed_forward_layers():
    dense = small_model()
    moe = upcycle(dense, Upcycling(Experts(num_experts=8, num_active=2, expert_width=24, shared_width=96), seed=5))
    assert moe.config.norm_topk_prob is False
    assert moe.config.rope_parameters == dense.config.rope_parameters
    mixed = moe.state_dict()
    for name, tensor in dense.state_dict().items():
        assert ".mlp." in name or torch.equal(mixed[name], tensor)
    assert moe.lm_head.weight is moe.model.embed_tokens.weight
    assert not mixed["model.layers.0.mlp.shared_expert_gate.weight"].any()


def test_upcycled_experts_differ_and_the_same_seed_repeats_them():
    dense, layout = small_model(), Experts(num_experts=8, num_active=2, expert_width=24, shared_width=96)
    first, again, other = (upcycle(dense, Upcycling(layout, seed=seed)).state_dict() for seed in (5, 5, 6))
    name = "model.layers.1.mlp.experts.gate_up_proj"
    experts = first[name].flatten(1)
    assert len(experts.unique(dim=0)) == 8
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first[name], other[name])
    assert not torch.equal(first[name], first["model.layers.0.mlp.experts.gate_up_proj"])


def test_upcycled_model_with_every_expert_active_and_nothing_drawn_afresh_is_close_to_dense():
    # Router at zero gives each of m * F / E experts probability E / (m * F), so routed output is FFN / n * m = FFN / 4,
    # and the shared path, a whole dense FFN half open, adds half: three quarters of the dense feed-forward output.
    dense = small_model()
    layout = Experts(num_experts=4, num_active=4, expert_width=24, shared_width=96)
    moe = upcycle(dense, Upcycling(layout, reinit_ratio=0.0, seed=5))
    with torch.no_grad():
        for layer in moe.model.layers:
            layer.mlp.gate.weight.zero_()
        for layer in dense.model.layers:
            layer.mlp.down_proj.weight.mul_(0.75)
    ids = random_ids(1, 20)
    torch.testing.assert_close(logits(moe.eval(), ids), logits(dense, ids), rtol=0, atol=1e-3)


def test_upcycling_without_a_shared_expert_is_refused():
    layout = Experts(num_experts=4, num_active=2, expert_width=24, shared_width=0)
    with pytest.raises(RecipeError, match="shared width"):
        Upcycling(layout)


@pytest.mark.parametrize("shared_width", [96, 130, 200])
def test_function_preserving_start_computes_what_the_dense_model_does(shared_width):
    dense, ids = small_model(), random_ids(2, 20)
    layout = Experts(num_experts=8, num_active=2, expert_width=24, shared_width=shared_width)
    moe = upcycle(dense, Upcycling(layout, start="function_preserving", seed=5)).eval()
    torch.testing.assert_close(logits(moe, ids), logits(dense, ids), rtol=0, atol=1e-4)
    # Experts join as they learn: the next step moves their down matrices.
    moe(ids, labels=ids).loss.backward()
    assert moe.model.layers[0].mlp.experts.down_proj.grad.abs().max() > 0


def test_function_preserving_start_needs_a_shared_expert_as_wide_as_the_dense_layer():
    layout = Experts(num_experts=8, num_active=2, expert_width=24, shared_width=95)
    with pytest.raises(RecipeError, match="shared width of at least 96"):
        upcycle(small_model(), Upcycling(layout, start="function_preserving"))
