"""Which number type a device really multiplies in.

A recipe's `bf16` is a wish for speed: kernels that lack the instructions emulate it. A forward and backward pass of the
`tiny` model took 3.8 s of one core in bf16 and 0.29 s in fp32 on a processor with AVX2 alone. Such processors
therefore compute in fp32, which is never less exact.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.overrides import TorchFunctionMode

Precision = Literal["bf16", "fp32"]

# Names of torch.cpu.get_capabilities(): x86 servers, x86 with AMX, ARM.
_BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
_LEAST_ROWS = 16


def compute_dtype(device: torch.device, precision: Precision) -> torch.dtype:
    """bfloat16 where `precision` asks for it and `device` has the instructions, float32 elsewhere."""
    if precision == "fp32":
        return torch.float32
    if device.type != "cpu":
        return torch.bfloat16
    found = torch.cpu.get_capabilities()
    return torch.bfloat16 if any(found.get(name) for name in _BF16_INSTRUCTIONS) else torch.float32


def autocast(model: nn.Module, precision: Precision) -> AbstractContextManager[Any]:
    """The autocast context of `precision` on the model's device; none where that computes in float32.

    On a CPU its linear layers see `num_kernel_rows` rows.
    """
    device = next(model.parameters()).device
    dtype = compute_dtype(device, precision)
    if dtype == torch.float32:
        return nullcontext()
    return _autocast_on_cpu(dtype) if device.type == "cpu" else torch.autocast(device.type, dtype=dtype)


def repeated_shapes() -> AbstractContextManager[Any]:
    """Inside `autocast` on a CPU what that does to linear layers: for code that backward runs again, after it."""
    bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return _RepeatedShapes() if bf16 else nullcontext()


def num_kernel_rows(tensor: Tensor, rows: int) -> int:
    """Rows to pad `rows` of `tensor`'s type to, so that products repeat shapes: one of eight numbers an octave.

    oneDNN makes a kernel for every shape of a bfloat16 product: 1 to 5 ms each, half of the time of a step of small
    rows whose number and length differ from step to step. Everything else multiplies any number of rows as it is.
    """
    if tensor.device.type != "cpu" or tensor.dtype != torch.bfloat16:
        return rows
    unit = max(_LEAST_ROWS, 1 << max(0, (rows - 1).bit_length() - 4))
    return -(-rows // unit) * unit


@contextmanager
def _autocast_on_cpu(dtype: torch.dtype) -> Iterator[None]:
    with torch.autocast("cpu", dtype=dtype), _RepeatedShapes():
        yield


class _RepeatedShapes(TorchFunctionMode):
    """Pads the rows that linear layers multiply, and cuts their results."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_linear if func is F.linear else func)(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if isinstance(input, DTensor) or isinstance(weight, DTensor) or not input.numel():
        return F.linear(input, weight, bias)
    rows = input.numel() // input.shape[-1]
    flat = input.reshape(rows, -1)
    if flat.dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
        flat = flat.to(torch.get_autocast_dtype("cpu"))
    padded = num_kernel_rows(flat, rows)
    if padded == rows:
        return F.linear(input, weight, bias)
    found = F.linear(F.pad(flat, (0, 0, 0, padded - rows)), weight, bias)
    return found[:rows].reshape(*input.shape[:-1], -1)
