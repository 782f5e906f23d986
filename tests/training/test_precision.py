import pytest
import torch
from torch import nn

from qwenops.training.precision import autocast, compute_dtype


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
