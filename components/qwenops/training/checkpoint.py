"""The state a killed training loop continues from: weights, optimiser, random state, counters.

A state becomes visible by one rename, so that a kill leaves the previous one and never half of one. Whole weights go
into one file, written by rank 0; weights sharded by FSDP2 go through torch.distributed.checkpoint, each worker
writing its own part.
"""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from qwenops.training.optimizer import MuonWithAdamW
from qwenops.training.parallel import is_sharded, place

_FILE = "state.pt"
_LATEST = "latest.json"


@dataclass
class LoopState:
    """Counters of a training loop.

    Attributes:
        step: Steps finished.
        tokens: Tokens trained by this worker.
        losses: Loss of every finished step, nats per token.
    """

    step: int = 0
    tokens: int = 0
    losses: list[float] = field(default_factory=list[float])


def save_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: LoopState) -> None:
    """Write everything the loop needs to continue exactly. Every worker must call it."""
    folder.mkdir(parents=True, exist_ok=True)
    if is_sharded(model):
        _save_shards(folder, model, optimizer, state)
    elif place().rank == 0:
        temporary = folder / (_FILE + ".tmp")
        torch.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "state": asdict(state),
                "random": torch.get_rng_state(),
            },
            temporary,
        )
        temporary.replace(folder / _FILE)


def load_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> LoopState:
    """Restore the last saved state into `model` and `optimizer`; a fresh state when there is none."""
    if is_sharded(model):
        return _load_shards(folder, model, optimizer)
    path = folder / _FILE
    if not path.exists():
        return LoopState()
    saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["random"])
    return LoopState(**saved["state"])


def _save_shards(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: LoopState) -> None:
    name = f"step-{state.step}"
    weights, moments = get_state_dict(model, _plain_optimizers(optimizer))
    dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=folder / name)
    if place().rank != 0:
        return
    temporary = folder / (_LATEST + ".tmp")
    temporary.write_text(json.dumps({"name": name, "state": asdict(state)}), encoding="utf-8")
    temporary.replace(folder / _LATEST)
    for old in folder.glob("step-*"):
        if old.name != name:
            shutil.rmtree(old)


def _load_shards(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> LoopState:
    latest = folder / _LATEST
    if not latest.exists():
        return LoopState()
    facts = json.loads(latest.read_text(encoding="utf-8"))
    weights, moments = get_state_dict(model, _plain_optimizers(optimizer))
    dcp.load({"model": weights, "optimizer": moments}, checkpoint_id=folder / facts["name"])
    set_state_dict(model, _plain_optimizers(optimizer), model_state_dict=weights, optim_state_dict=moments)
    return LoopState(**facts["state"])


def _plain_optimizers(optimizer: torch.optim.Optimizer) -> tuple[torch.optim.Optimizer, ...]:
    return optimizer.parts if isinstance(optimizer, MuonWithAdamW) else (optimizer,)
