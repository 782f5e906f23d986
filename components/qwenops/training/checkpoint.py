"""The state a killed training loop continues from: weights, optimiser, random state, counters.

One file, replaced by rename, so that a kill leaves the previous state and never half of one.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

_FILE = "state.pt"


@dataclass
class LoopState:
    """Counters of a training loop.

    Attributes:
        step: Steps finished.
        tokens: Tokens trained.
        losses: Loss of every finished step, nats per token.
    """

    step: int = 0
    tokens: int = 0
    losses: list[float] = field(default_factory=list[float])


def save_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: LoopState) -> None:
    """Write everything the loop needs to continue exactly."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / (_FILE + ".tmp")
    torch.save(
        {
            "model": model.state_dict(), "optimizer": optimizer.state_dict(), "state": asdict(state),
            "random": torch.get_rng_state(),
        },
        temporary,
    )
    temporary.replace(folder / _FILE)


def load_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> LoopState:
    """Restore the last saved state into `model` and `optimizer`; a fresh state when there is none."""
    path = folder / _FILE
    if not path.exists():
        return LoopState()
    saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["random"])
    return LoopState(**saved["state"])
