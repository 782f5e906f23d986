import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenops.errors import RecipeError, StageError
from qwenops.model.attention import attend_eager, attend_eager_backward, attend_part, attend_part_backward
from qwenops.model.dual_chunk import DualChunk, attend, padding_mask
from qwenops.model.rope import rotate, rotation_table

HEAD = 16
# Sums in another order; measured differences stay below 1e-6.
TOLERANCE = 1e-5


def table_for(scheme: DualChunk) -> torch.Tensor:
    return rotation_table(1e4, HEAD, scheme.chunk_size + 1, torch.device("cpu"))


def projections(num_queries: int, num_keys: int, *, heads: int = 4, kv_heads: int = 2, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(2, number, length, HEAD, generator=generator)
        for number, length in ((heads, num_queries), (kv_heads, num_keys), (kv_heads, num_keys))
    )


def relative_positions(scheme: DualChunk, length: int) -> torch.Tensor:
    """M[i][j] of the paper: query position minus key position, by the kind of pair."""
    tokens = torch.arange(length)
    own, successive, earlier = scheme.positions(tokens)
    apart = tokens[:, None] // scheme.chunk_length - tokens // scheme.chunk_length
    query = torch.where(apart == 0, own[:, None], torch.where(apart == 1, successive[:, None], earlier[:, None]))
    return query - own


def plain_softmax(query, key, value, scheme: DualChunk, scale: float) -> torch.Tensor:
    """One masked softmax over scores rotated pair by pair: the definition, without chunks of computation."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    table, length = table_for(scheme), key.shape[2]
    rows = torch.arange(length - query.shape[2], length)
    apart = rows[:, None] // scheme.chunk_length - torch.arange(length) // scheme.chunk_length
    keys = rotate(key, scheme.positions(torch.arange(length))[0], table)
    scores = torch.full((*query.shape[:3], length), float("-inf"))
    for kind, positions in enumerate(scheme.positions(rows)):
        these = rotate(query, positions, table) @ keys.mT * scale
        scores = torch.where(apart.clamp(max=2) == kind, these, scores)
    return scores.masked_fill(rows[:, None] < torch.arange(length), float("-inf")).softmax(-1) @ value


def rope_attention(query, key, value, scale: float) -> torch.Tensor:
    groups, length = query.shape[1] // key.shape[1], key.shape[2]
    table = rotation_table(1e4, HEAD, length, torch.device("cpu"))
    query, key = (rotate(x, torch.arange(length), table) for x in (query, key.repeat_interleave(groups, 1)))
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value.repeat_interleave(groups, 1), is_causal=True, scale=scale
    )


def test_relative_positions_match_the_papers_example():
    # c = 10, s = 6: the paper's own figure.
    matrix = relative_positions(DualChunk.from_paper(10, 6), 12)
    assert matrix[6, :7].tolist() == [6, 5, 4, 3, 2, 1, 0]
    assert matrix[9, :10].tolist() == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert matrix[10, :11].tolist() == [9, 8, 7, 6, 5, 4, 4, 3, 2, 1, 0]
    assert matrix[11, :12].tolist() == [9, 8, 7, 6, 5, 4, 5, 4, 3, 2, 1, 0]


@given(chunk_size=st.integers(4, 40), share=st.floats(0.05, 0.45), length=st.integers(2, 300))
@settings(max_examples=60, deadline=None)
def test_relative_positions_stay_in_range_and_neighbours_are_one_apart(chunk_size, share, length):
    scheme = DualChunk(chunk_size, max(1, min(int(share * chunk_size), (chunk_size - 1) // 2)))
    matrix = relative_positions(scheme, length)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    assert int(matrix[causal].min()) >= 0
    assert int(matrix[causal].max()) <= scheme.chunk_size
    assert (matrix.diagonal(-1) == 1).all()
    distance = torch.arange(length)[:, None] - torch.arange(length)
    near = causal & (distance <= scheme.local_size)
    assert torch.equal(matrix[near], distance[near])


@pytest.mark.parametrize("length", [1, 5, 24, 32, 33])
def test_attention_up_to_one_beyond_the_chunk_size_is_plain_rope(length):
    scheme, (query, key, value) = DualChunk(32, 8), projections(length, length)
    found = attend(query, key, value, scheme, table_for(scheme), 0.25)
    torch.testing.assert_close(found, rope_attention(query, key, value, 0.25), rtol=0, atol=TOLERANCE)


def test_attention_two_beyond_the_chunk_size_differs_from_plain_rope():
    scheme, (query, key, value) = DualChunk(32, 8), projections(34, 34)
    found = attend(query, key, value, scheme, table_for(scheme), 0.25)
    assert (found - rope_attention(query, key, value, 0.25)).abs().max() > 1e-3


def test_papers_numbering_is_plain_rope_up_to_the_trained_length():
    scheme = DualChunk.from_paper(32)
    assert (scheme.chunk_length, scheme.chunk_size) == (24, 31)
    for length, equal in ((32, True), (33, False)):
        query, key, value = projections(length, length)
        gap = attend(query, key, value, scheme, table_for(scheme), 0.25) - rope_attention(query, key, value, 0.25)
        assert bool(gap.abs().max() < TOLERANCE) is equal


@pytest.mark.parametrize("num_queries", ["all", 1, 7])
@pytest.mark.parametrize("length", [23, 24, 25, 47, 48, 49, 100, 150])
def test_merged_parts_equal_one_softmax(length, num_queries):
    scheme = DualChunk(32, 8)
    query, key, value = projections(length if num_queries == "all" else num_queries, length)
    found = attend(query, key, value, scheme, table_for(scheme), 0.25)
    torch.testing.assert_close(found, plain_softmax(query, key, value, scheme, 0.25), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("num_queries", ["all", 1, 7])
@pytest.mark.parametrize("length", [24, 49, 100])
def test_gradients_of_query_key_and_value_equal_those_of_one_softmax(length, num_queries):
    scheme = DualChunk(32, 8)
    inputs = projections(length if num_queries == "all" else num_queries, length)
    upstream = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(5))
    found = []
    for function in (
        lambda *x: attend(*x, scheme, table_for(scheme), 0.25),
        lambda *x: plain_softmax(*x, scheme, 0.25),
    ):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        function(*leaves).backward(upstream)
        found.append([leaf.grad for leaf in leaves])
    for ours, reference in zip(*found, strict=True):
        torch.testing.assert_close(ours, reference, rtol=0, atol=TOLERANCE)


def test_gradients_in_bfloat16_stay_near_those_in_float32():
    scheme, inputs = DualChunk(32, 8), projections(150, 150)
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        leaves = [tensor.to(torch.bfloat16).to(dtype).requires_grad_() for tensor in inputs]
        attend(*leaves, scheme, table_for(scheme), 0.25).square().mean().backward()
        found.append([leaf.grad.float() for leaf in leaves])
    for half, whole in zip(*found, strict=True):
        assert (half - whole).norm() < 0.02 * whole.norm()


def test_what_training_keeps_grows_with_the_length_and_not_with_its_square():
    scheme, kept = DualChunk(64, 16), {}
    for length in (256, 1024):
        leaves = [tensor.requires_grad_() for tensor in projections(length, length)]
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):  # noqa: B023
            attend(*leaves, scheme, table_for(scheme), 0.25)
        kept[length] = sum(sizes)
    assert kept[1024] < 4.1 * kept[256]


@pytest.mark.parametrize("causal", [True, False])
def test_attention_without_a_kernel_equals_the_kernel_forwards_and_backwards(causal):
    query, key, value = projections(30, 30, kv_heads=4)
    gradient = projections(30, 30, seed=3)[0]
    output, lse = attend_part(query, key, value, 0.25, causal=causal)
    plain = attend_eager(query, key, value, 0.25, causal=causal)
    torch.testing.assert_close((output, lse), plain, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(
        attend_part_backward(gradient, query, key, value, output, lse, 0.25, causal=causal),
        attend_eager_backward(gradient, query, key, value, output, lse, 0.25, causal=causal),
        rtol=0,
        atol=TOLERANCE,
    )


def test_grouped_queries_equal_repeated_keys():
    scheme, (query, key, value) = DualChunk(32, 8), projections(90, 90)
    table = table_for(scheme)
    repeated = attend(query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), scheme, table, 0.25)
    torch.testing.assert_close(attend(query, key, value, scheme, table, 0.25), repeated, rtol=0, atol=TOLERANCE)


def test_later_tokens_do_not_reach_earlier_outputs():
    scheme, (query, key, value) = DualChunk(32, 8), projections(90, 90)
    before = attend(query, key, value, scheme, table_for(scheme), 0.25)
    key[:, :, 60], value[:, :, 60] = 5.0, 5.0
    after = attend(query, key, value, scheme, table_for(scheme), 0.25)
    assert torch.equal(before[:, :, :60], after[:, :, :60])
    assert not torch.equal(before[:, :, 60:], after[:, :, 60:])


def test_local_window_as_wide_as_a_chunk_is_refused():
    with pytest.raises(RecipeError, match="local window"):
        DualChunk(32, 16)


def test_packed_rows_are_refused():
    with pytest.raises(StageError, match="packed"):
        padding_mask(1, 8, 8, mask_function=lambda *indices: indices[0] == 0)
