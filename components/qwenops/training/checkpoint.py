"""What a killed training loop continues from: weights, optimiser, random states, counters.

torch.distributed.checkpoint writes weights and moments under their parameter names, so that a loop may resume with
another number of workers or with weights sharded another way. The rate and the data position are functions of the step
and need no state of their own. Whole weights are copied and written by a thread of rank 0 while training goes on;
sharded weights are written at once by all workers, since a collective in a thread would race with the loop's own.
"""

import copy
import math
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from qwenops.training.checkpoint_files import (
    find_corruption,
    list_checkpoints,
    partial_folder,
    prune,
    publish,
    quarantine,
    read_state,
)
from qwenops.training.optimizer import plain_optimizers
from qwenops.training.parallel import is_distributed, is_sharded, worker_rank
from qwenops.training.random_state import random_state, restore_random_state

# A single process is what is meant where no group is given.
warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)


@dataclass
class LoopState:
    """Counters of a training loop.

    Attributes:
        step: Steps finished, skipped ones included.
        tokens: Tokens trained, by all workers.
        losses: Loss of every finished step, nats per token; not a number where the step was skipped.
        norms: Gradient norms of the last steps that were not skipped, for the guard.
        skipped: Steps that were skipped.
        rollbacks: Times the weights went back to a checkpoint.
        rolled_back_at: Step before which they last did.
    """

    step: int = 0
    tokens: int = 0
    losses: list[float] = field(default_factory=list[float])
    norms: list[float] = field(default_factory=list[float])
    skipped: list[int] = field(default_factory=list[int])
    rollbacks: int = 0
    rolled_back_at: int = 0


class Checkpoints:
    """The checkpoints of one loop in one folder, which all workers reach. Every worker must make every call.

    Args:
        folder: Made when missing.
        keep: Checkpoints that stay; older ones are removed.
        on_event: Called on rank 0 with a sentence when a checkpoint is damaged.
    """

    def __init__(self, folder: Path, keep: int, on_event: Callable[[str], None]) -> None:
        self._folder, self._keep, self._on_event = folder, keep, on_event
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: LoopState) -> None:
        """Write everything the loop needs to continue exactly; returns early when a thread can do the rest.

        Raises:
            OSError: this or the previous checkpoint could not be written.
        """
        self.wait()
        part = partial_folder(self._folder, state.step)
        if worker_rank().rank == 0:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        _barrier()
        own = {"random": random_state()}
        torch.save(own, part / f"rank-{worker_rank().rank}.pt")
        facts = {"world_size": worker_rank().world_size, "state": asdict(state)}
        content = _content(model, optimizer)
        if is_sharded(model):
            save(content, checkpoint_id=part)
            if worker_rank().rank == 0:
                self._publish(part, facts)
            _barrier()
            return
        _barrier()
        if worker_rank().rank == 0:
            self._pending = self._writer.submit(self._write, part, _snapshot(content), copy.deepcopy(facts))

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer, *, random: bool = True) -> LoopState | None:
        """Load the newest checkpoint that is whole into `model` and `optimizer`; None when there is none.

        Args:
            model: Filled in place.
            optimizer: Filled in place.
            random: Whether the random states go back as well.
        """
        self.wait()
        _barrier()
        for folder in list_checkpoints(self._folder):
            damage = _agree(find_corruption(folder, worker_rank().rank, worker_rank().world_size))
            if not damage:
                return _load(folder, model, optimizer, random)
            if worker_rank().rank == 0:
                quarantine(folder)
                self._on_event(f"checkpoint {folder.name} is damaged ({damage}); falling back to the one before it")
            _barrier()
        return None

    def wait(self) -> None:
        """Wait until the last save is published; raises what it raised."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Finish what is being written and end the thread."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def _write(self, part: Path, content: dict[str, Any], facts: dict[str, Any]) -> None:
        save(content, checkpoint_id=part, no_dist=True)
        self._publish(part, facts)

    def _publish(self, part: Path, facts: dict[str, Any]) -> None:
        publish(part, facts)
        prune(self._folder, self._keep)


def _content(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    weights, moments = get_state_dict(model, plain_optimizers(optimizer))
    return {"model": weights, "optimizer": moments}


def _snapshot(content: Any) -> Any:
    """A copy of nested state on the CPU that later steps do not change."""
    if isinstance(content, torch.Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, dict):
        return {key: _snapshot(value) for key, value in content.items()}
    return copy.deepcopy(content)


def _load(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, random: bool) -> LoopState:
    facts, here = read_state(folder), worker_rank()
    assert facts is not None, "find_corruption has read it"
    content = _content(model, optimizer)
    load(content, checkpoint_id=folder, no_dist=not is_sharded(model))
    set_state_dict(
        model,
        plain_optimizers(optimizer),
        model_state_dict=content["model"],
        optim_state_dict=content["optimizer"],
    )
    state = LoopState(**facts["state"])
    # JSON has no other word for what is no number.
    state.losses = [math.nan if loss is None else loss for loss in facts["state"]["losses"]]
    # With another number of workers the same rows are shared out anew, and random states cannot be the same.
    if random and facts["world_size"] == here.world_size:
        own = torch.load(folder / f"rank-{here.rank}.pt", map_location="cpu", weights_only=True)
        restore_random_state(own["random"])
    return state


def _agree(damage: str) -> str:
    """The first damage that any worker found."""
    if not is_distributed():
        return damage
    found: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(found, damage)
    return next(filter(None, found), "")


def _barrier() -> None:
    if is_distributed():
        dist.barrier()
