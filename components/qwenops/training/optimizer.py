"""Optimisers: AdamW with decay on matrices only, and Muon for matrices with AdamW for the rest.

Muon (torch.optim.Muon) orthogonalises the momentum of each weight matrix. With half a million parameters it
is what makes retrieval appear within minutes; `pipelines/LOG.md` has the comparison.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.overrides import TorchFunctionMode

from qwenops.training.config import TrainingConfig
from qwenops.training.precision import compute_dtype

_MUON_MOMENTUM = 0.95


class Muon(torch.optim.Muon):
    """torch's Muon, whose Newton-Schulz iteration runs in fp32 where the device only emulates bf16.

    torch fixes the iteration's type to bfloat16. Emulated, it was half of a step of the `tiny` model: 0.29 s of 0.60 s
    on one core with AVX2.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update."""
        device = self.param_groups[0]["params"][0].device
        if compute_dtype(device, "bf16") == torch.bfloat16:
            return super().step(closure)
        with _Float32ForBfloat16():
            return super().step(closure)


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimisers behind one interface: Muon for 2-d weights of the layers, AdamW for everything else.

    `param_groups` is the concatenation of both, so a schedule that sets every group's rate reaches both. `parts` are
    the two, for whoever must see plain optimisers (sharded checkpoints).
    """

    def __init__(self, muon: torch.optim.Optimizer, adamw: torch.optim.Optimizer) -> None:
        self.parts = (muon, adamw)
        self.defaults = {}
        self.state = {}  # type: ignore[assignment]

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The groups of both parts as they are now: a part that loads a state makes its groups anew."""
        return [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of both parts; `closure`, if given, is called once before."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of both parts."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """State of both parts."""
        return {"muon": self.parts[0].state_dict(), "adamw": self.parts[1].state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for part, name in zip(self.parts, ("muon", "adamw"), strict=True):
            part.load_state_dict(state_dict[name])


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """The configured optimiser over the trainable parameters of `model`.

    Matrices decay, vectors (norms, biases) do not. Under "muon" the 2-d weights go to Muon, except embeddings
    and the output projection, whose rows are looked up and not multiplied.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if config.optimizer == "adamw":
        return _adamw(named, config)
    hidden = [p for name, p in named if _is_hidden_matrix(name, p)]
    rest = [(name, p) for name, p in named if not _is_hidden_matrix(name, p)]
    muon = Muon(
        hidden, lr=config.learning_rate, weight_decay=config.weight_decay, momentum=_MUON_MOMENTUM, nesterov=True
    )
    return MuonWithAdamW(muon, _adamw(rest, config))


def plain_optimizers(optimizer: torch.optim.Optimizer) -> tuple[torch.optim.Optimizer, ...]:
    """The optimisers of torch that `optimizer` consists of: what torch's state-dict functions understand."""
    return optimizer.parts if isinstance(optimizer, MuonWithAdamW) else (optimizer,)


class _Float32ForBfloat16(TorchFunctionMode):
    """Answers `tensor.bfloat16()` with a float32 copy (a copy, because the caller goes on to change it in place)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.bfloat16:
            return args[0].to(torch.float32, copy=True)
        return func(*args, **(kwargs or {}))


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and "embed_tokens" not in name and "lm_head" not in name


def _adamw(named: Iterable[tuple[str, nn.Parameter]], config: TrainingConfig) -> torch.optim.AdamW:
    listed = list(named)
    # A fused step takes tensors of one mesh at a time.
    groups: dict[Any, dict[str, Any]] = {}
    for decays in (True, False):
        for _, parameter in (pair for pair in listed if (pair[1].ndim >= 2) == decays):
            mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
            group = {"params": [], "weight_decay": config.weight_decay if decays else 0.0}
            groups.setdefault((decays, mesh), group)["params"].append(parameter)
    return torch.optim.AdamW(
        list(groups.values()),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        fused=True,
    )
