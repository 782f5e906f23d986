"""Attention under autocast: the type of its kernel, and the same figures as transformers' own function."""

import pytest
import torch
from tests.model.small import grouped_model, loss_and_gradients
from torch.utils._python_dispatch import TorchDispatchMode

from qwenops.model import sdpa
from qwenops.model.warm_start import load_initial_model
from qwenops.training.batching import Example, pad_batch, text_batch
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import fit
from qwenops.training.objective import language_modelling

_ROWS = text_batch(torch.arange(50).reshape(2, 25).numpy())
_PADDED = pad_batch([Example(list(range(1, n)), (True,) * (n - 1)) for n in (6, 10, 4)], 0)


class _Kernels(TorchDispatchMode):
    """Notes the types that attention kernels get, forwards and backwards."""

    def __init__(self):
        super().__init__()
        self.types = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "scaled_dot_product" in str(func):
            self.types[func.__name__.split(".")[0]] = args[1].dtype
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("batch", [_ROWS, _PADDED], ids=["whole", "padded"])
def test_without_autocast_it_computes_what_the_function_of_transformers_does(batch):
    found = [loss_and_gradients(implementation, batch) for implementation in ("sdpa", sdpa.NAME)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("batch", [_ROWS, _PADDED], ids=["whole", "padded"])
def test_under_autocast_its_gradients_are_nearer_to_those_without(batch):
    exact = loss_and_gradients("sdpa", batch)
    errors = {}
    for implementation in ("sdpa", sdpa.NAME):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = loss_and_gradients(implementation, batch)
        assert all(torch.allclose(a, b, rtol=0.02, atol=0.02) for a, b in zip(exact, rounded, strict=True))
        errors[implementation] = sum(
            float((a - b).detach().square().sum()) for a, b in zip(exact, rounded, strict=True)
        )
    assert errors[sdpa.NAME] < errors["sdpa"]


def test_a_loaded_model_that_trains_in_bf16_on_a_cpu_attends_in_fp32(tmp_path):
    grouped_model().save_pretrained(tmp_path)
    config = TrainingConfig(steps=1, batch_tokens=48, warmup_steps=0, precision="bf16")
    with _Kernels() as kernels:
        fit(load_initial_model(str(tmp_path)), language_modelling, lambda _: iter([_ROWS]), config)
    assert set(kernels.types.values()) == {torch.float32}
    assert any("backward" in name for name in kernels.types)


@pytest.mark.parametrize(("rows", "needed"), [([[1, 1, 1], [1, 1, 0]], False), ([[1, 1, 1], [0, 1, 1]], True)])
def test_rows_padded_on_the_right_need_no_mask(rows, needed):
    found = sdpa.mask_of(2, 3, 3, attention_mask=torch.tensor(rows))
    assert (found is not None) == needed
