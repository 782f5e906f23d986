from itertools import pairwise

import pytest
import torch
from tests.training.counting import VOCABULARY, tiny_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from qwenops.training.loss import IGNORE_INDEX, cross_entropy_by_token, hidden_states, output_weight, token_log_probs
from qwenops.training.precision import autocast, compute_dtype, num_kernel_rows
from qwenops.training.recompute import recompute_layers


class _Products(TorchDispatchMode):
    """The shapes of the matrix products inside."""

    def __init__(self):
        super().__init__()
        self.shapes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            left, right = args[-2:]
            self.shapes.add((*left.shape, right.shape[1]))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def has_bf16(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})


def _batch(rows, length, seed):
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCABULARY, (rows, length), generator=draw)
    labels = torch.where(torch.rand(rows, length, generator=draw) < 0.3, IGNORE_INDEX, ids)
    return ids, labels


def _both_losses(model, ids, labels):
    """The losses of fine-tuning and of preferences, which read logits in two ways."""
    hidden = hidden_states(model, ids)
    likelihood, _ = cross_entropy_by_token(hidden, output_weight(model), labels)
    return likelihood - token_log_probs(hidden, output_weight(model), labels).sigmoid().mean()


@pytest.mark.parametrize(
    ("instructions", "dtype"),
    [({"avx2": True}, torch.float32), ({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": False}, torch.float32)],
)
def test_processor_without_bf16_instructions_computes_in_fp32(monkeypatch, instructions, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    model = nn.Linear(4, 4)
    with autocast(model, "bf16"):
        assert model(torch.ones(2, 4)).dtype == dtype
    with autocast(model, "fp32"):
        assert model(torch.ones(2, 4)).dtype == torch.float32


def test_accelerator_computes_in_the_type_the_recipe_asks_for():
    assert compute_dtype(torch.device("cuda"), "bf16") == torch.bfloat16
    assert compute_dtype(torch.device("cuda"), "fp32") == torch.float32


def test_padded_rows_are_at_most_an_eighth_more_and_of_eight_numbers_an_octave():
    matrix = torch.zeros(1, 1, dtype=torch.bfloat16)
    found = {rows: num_kernel_rows(matrix, rows) for rows in range(1, 20_000)}
    assert all(rows <= padded < rows * 9 / 8 or (rows < 128 and padded < rows + 16) for rows, padded in found.items())
    assert all(one <= next_one for one, next_one in pairwise(found.values()))
    assert len({padded for padded in found.values() if 4096 < padded <= 8192}) == 8
    assert num_kernel_rows(matrix.float(), 37) == 37


@pytest.mark.parametrize("policy", ["none", "layers", "matmuls"])
def test_rows_of_changing_number_and_length_make_products_of_few_shapes(has_bf16, policy):
    model = tiny_model()
    recompute_layers(model, policy)
    # The 40 batches have 40 numbers of tokens and of targets.
    sizes = [(rows, 2 * rows + odd) for rows in range(11, 31) for odd in (1, 3)]
    assert len({rows * length for rows, length in sizes}) == len(sizes)
    with _Products() as products:
        for seed, size in enumerate(sizes):
            with autocast(model, "bf16"):
                loss = _both_losses(model, *_batch(*size, seed))
            loss.backward()
    numbers = {max(shape) for shape in products.shapes}
    # The 80 numbers lie between 160 and 2,000, where eight an octave make 30; 64 is the vocabulary.
    assert len(numbers) <= 36


def test_padding_changes_neither_loss_nor_gradient(has_bf16):
    ids, labels = _batch(5, 23, 0)
    found = {}
    for name in ("padded", "plain"):
        model = tiny_model()
        with autocast(model, "bf16") if name == "padded" else torch.autocast("cpu", torch.bfloat16):
            loss = _both_losses(model, ids, labels)
        loss.backward()
        found[name] = loss.detach(), [parameter.grad for parameter in model.parameters()]
    torch.testing.assert_close(found["padded"][0], found["plain"][0], rtol=1e-3, atol=1e-3)
    for one, other in zip(found["padded"][1], found["plain"][1], strict=True):
        assert float((one - other).norm()) <= 0.02 * float(other.norm()) + 1e-6
