"""Optimisers: AdamW with decay on matrices only, and Muon for matrices with AdamW for the rest.

Muon (Jordan et al. 2024) orthogonalises the momentum of each weight matrix. With half a million parameters it
is what makes retrieval appear within minutes; `pipelines/LOG.md` has the comparison.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from qwenops.training.config import TrainingConfig
from qwenops.training.precision import compute_dtype

_MUON_MOMENTUM = 0.95
# As in torch.optim.Muon: the quintic of the iteration, its repeats, and what keeps a zero from dividing.
_QUINTIC, _REPEATS, _EPSILON = (3.4445, -4.7750, 2.0315), 5, 1e-7
# House choice: from about this size on a product alone keeps a processor or GPU busy, and copies would cost memory.
_BATCH_ENTRIES = 1 << 22


class Muon(torch.optim.Optimizer):
    """The update of torch.optim.Muon, with the Newton-Schulz iterations of small matrices of one shape in one batch.

    One matrix at a time, the iteration was a fifth of a step of the `tiny` model. It runs in bfloat16 where the device
    has the instructions, as torch's does, and in float32 elsewhere, where torch's emulates bfloat16.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float,
        momentum: float = _MUON_MOMENTUM,
        nesterov: bool = True,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for matrices in _batches([p for p in group["params"] if p.grad is not None]):
                self._update(matrices, group)
        return loss

    def _update(self, matrices: Sequence[nn.Parameter], group: dict[str, Any]) -> None:
        updates = [self._momentum(matrix, group) for matrix in matrices]
        rows, columns = matrices[0].shape
        if rows > columns:
            updates = [update.mT for update in updates]
        # A matrix whose shards lie in several processes is no part of a tensor of this one.
        stacked = torch.stack(updates) if len(updates) > 1 else updates[0]
        found = _orthogonalize(stacked.to(compute_dtype(matrices[0].device, "bf16"), copy=True))
        if rows > columns:
            found = found.mT
        rate = group["lr"] * math.sqrt(max(1, rows / columns))
        for matrix, update in zip(matrices, found.unbind() if len(updates) > 1 else [found], strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)

    def _momentum(self, matrix: nn.Parameter, group: dict[str, Any]) -> Tensor:
        gradient = cast("Tensor", matrix.grad)
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum


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
    muon = Muon(hidden, lr=config.learning_rate, weight_decay=config.weight_decay)
    return MuonWithAdamW(muon, _adamw(rest, config))


def plain_optimizers(optimizer: torch.optim.Optimizer) -> tuple[torch.optim.Optimizer, ...]:
    """The optimisers of torch that `optimizer` consists of: what torch's state-dict functions understand."""
    return optimizer.parts if isinstance(optimizer, MuonWithAdamW) else (optimizer,)


def _batches(matrices: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Matrices of one shape, of at most `_BATCH_ENTRIES`; sharded ones alone."""
    alike: dict[Any, list[nn.Parameter]] = {}
    for matrix in matrices:
        if isinstance(matrix, DTensor):
            yield [matrix]
        else:
            alike.setdefault((matrix.shape, matrix.device, matrix.dtype), []).append(matrix)
    for batch in alike.values():
        size = max(1, _BATCH_ENTRIES // batch[0].numel())
        yield from (batch[start : start + size] for start in range(0, len(batch), size))


def _orthogonalize(matrix: Tensor) -> Tensor:
    """Near U V^T of each U S V^T of `matrix`, [..., rows, columns] with no more rows than columns; changes `matrix`."""
    matrix /= torch.linalg.vector_norm(matrix, dim=(-2, -1), keepdim=True).clamp(min=_EPSILON)
    add_product = torch.baddbmm if matrix.ndim > 2 else torch.addmm
    linear, cubic, quintic = _QUINTIC
    for _ in range(_REPEATS):
        gram = matrix @ matrix.mT
        matrix = add_product(matrix, add_product(gram, gram, gram, beta=cubic, alpha=quintic), matrix, beta=linear)
    return matrix


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
