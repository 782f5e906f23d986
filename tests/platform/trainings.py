"""A loop of the real engine for Ray Train's workers, and how a test watches and compares it."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from qwenops.errors import ContractError
from qwenops.platform.context import RunContext
from qwenops.platform.ray.train import launch
from qwenops.training.batching import text_batch
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import FitCallbacks, fit
from qwenops.training.objective import language_modelling
from qwenops.training.parallel import worker_rank
from qwenops.training.terms import Batch

CONFIG = TrainingConfig(
    steps=40, batch_tokens=64, learning_rate=1e-2, warmup_steps=2, checkpoint_every_steps=6, keep_checkpoints=40
)


def loop(config: dict) -> dict:
    """Train to the end; worker 0 notes the steps, and the last one kills itself or fails as often as it is told to."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, num_attention_heads=4, num_key_value_heads=2))
    folder, here = Path(config["folder"]), worker_rank()

    def batches(start: int) -> Iterator[Batch]:
        for step in range(start, CONFIG.steps):
            first = np.random.default_rng(step).integers(64, size=(4, 1))
            yield text_batch(((first + np.arange(17)) % 64)[here.rank :: here.world_size])

    def on_step(report) -> None:
        if here.rank == 0:
            with (folder / "steps").open("a", encoding="ascii") as notes:
                notes.write(f"{report.step}\n")
        if here.rank == here.world_size - 1:
            if report.step == config.get("kill_at") and _again(folder, config.get("kills", 1)):
                os.kill(os.getpid(), signal.SIGKILL)
            if report.step == config.get("fail_at"):
                raise ContractError("row 3 is broken", expected="whole rows", found="half of one")
        time.sleep(config.get("pause", 0))

    fit(model, language_modelling, batches, CONFIG, hooks=FitCallbacks(on_step=on_step), state_dir=folder / "state")
    if here.rank == 0:
        torch.save(model.state_dict(), folder / "out.pt")
    return {}


def _again(folder: Path, most: int) -> bool:
    """Whether less than `most` workers of this training have been killed; counts one more."""
    killed = folder / "killed"
    with killed.open("a", encoding="ascii") as notes:
        notes.write("x")
    return killed.stat().st_size <= most


def run(folder: Path, num_workers: int, **config: object) -> None:
    """Launch `loop` as a stage does: always under the same name and in the same storage."""
    folder.mkdir(exist_ok=True)
    context = RunContext(str(folder), str(folder), str(folder), num_workers=num_workers)
    launch(loop, {"folder": str(folder), **config}, context, "training", folder / "ray")


def steps(folder: Path) -> list[int]:
    """Steps that worker 0 has finished, in the order it did."""
    path = folder / "steps"
    return [int(line) for line in path.read_text(encoding="ascii").split()] if path.exists() else []


def wait_for_step(folder: Path, step: int, seconds: float = 600) -> None:
    """Return when worker 0 has finished `step`."""
    end = time.monotonic() + seconds
    while step not in steps(folder):
        assert time.monotonic() < end, f"step {step} was not reached: {steps(folder)}"
        time.sleep(0.05)


def settled_steps(folder: Path, seconds: float = 2) -> list[int]:
    """Steps of worker 0 once there are no more: workers outlive their driver by a moment."""
    before, now = [], steps(folder)
    while now != before:
        time.sleep(seconds)
        before, now = now, steps(folder)
    return now


def assert_same(folder: Path, other: Path) -> None:
    """Both ended with bitwise the same weights."""
    found, expected = torch.load(folder / "out.pt"), torch.load(other / "out.pt")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
