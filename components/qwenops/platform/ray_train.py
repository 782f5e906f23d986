"""Run a training loop through Ray Train: in this process on a laptop, on workers with GPUs in a cluster.

What a loop needs to continue lies in its own checkpoints (`training/checkpoint.py`), so a run that lost a worker or its
driver is continued by launching it again, and one whose node is drained by Ray Train itself, on other nodes.
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from qwenops.errors import FAMILIES, PlatformError, QwenOpsError, StageError
from qwenops.platform.context import RunContext
from qwenops.platform.observe import worker_observed
from qwenops.platform.preemption import DrainNotice, SignalNotice
from qwenops.platform.ray_data import connect
from qwenops.training.preemption import heeding

# Ray Train's names for a worker that went away: its process died, its node was taken, it does not answer.
_LOST = {"WorkerHealthCheckFailedError", "WorkerHealthCheckTimeoutError"}


def launch(
    loop: Callable[[dict[str, Any]], dict[str, Any]],
    config: dict[str, Any],
    context: RunContext,
    name: str,
    storage: Path,
) -> dict[str, Any]:
    """Run `loop(config)` under Ray Train and return what it returned (on rank 0).

    With `context.num_workers == 0` Ray Train's local mode calls the loop in this process, which costs a tenth of a
    second instead of the ten that a worker needs to start. Otherwise every worker of the group calls it, with
    torch.distributed set up (gloo on CPUs, nccl on GPUs); `config` must then survive pickling.

    Args:
        loop: A module-level function; workers of other processes run it with a log and system metrics of their own.
        config: Its argument.
        context: Number and kind of workers, address of Ray.
        name: Names the Ray Train run.
        storage: Folder that all workers reach, for Ray Train's own state.

    Raises:
        QwenOpsError: what the loop raised, or StageError for any other failure of a worker.
    """
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    if context.num_workers:
        connect(context)
    trainer = TorchTrainer(
        partial(_watched, loop, context, name) if context.num_workers else loop,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if context.use_gpu == "yes" else "gloo"),
        scaling_config=ray.train.ScalingConfig(num_workers=context.num_workers, use_gpu=context.use_gpu == "yes"),
        run_config=ray.train.RunConfig(name=name, storage_path=str(storage.resolve())),
    )
    notice = SignalNotice()
    try:
        with notice.installed(), heeding(notice):
            result = trainer.fit()
    except ray.train.WorkerGroupError as error:
        raise _first_failure(error, name) from error
    except ray.train.ControllerError as error:
        raise PlatformError(
            f"Ray Train could not run {name}",
            expected=f"{context.num_workers} workers",
            found=error,
            action="look at the Ray cluster's free resources and its dashboard",
        ) from error
    return result.return_value


def _watched(
    loop: Callable[[dict[str, Any]], dict[str, Any]], context: RunContext, name: str, config: dict[str, Any]
) -> dict[str, Any]:
    """`loop` in a worker: one worker of each machine but the first records that machine's system metrics."""
    here = ray.train.get_context()
    machine = f"node-{here.get_node_rank()}" if here.get_node_rank() and not here.get_local_rank() else ""
    with worker_observed(context, name, machine), heeding(DrainNotice()):
        return loop(config)


def _first_failure(error: ray.train.WorkerGroupError, name: str) -> QwenOpsError:
    """The worker's own error where it is one of ours (pickled errors keep only their text)."""
    rank, failure = min(error.worker_failures.items())
    cause = getattr(failure, "cause", None) or failure
    family = FAMILIES.get(type(cause).__name__.split("(")[-1].rstrip(")"), StageError)
    if type(failure).__name__ in _LOST:
        return PlatformError(
            f"worker {rank} of {name} was lost",
            expected="workers that live as long as the training",
            found=cause,
            action="run again, it continues from the last checkpoint; ask for more memory if it was killed for it",
        )
    if isinstance(cause, QwenOpsError):
        return family(cause.message, expected=cause.expected, found=cause.found, action=cause.action)
    return family(f"worker {rank} of {name} failed", found=cause, action="read the worker's log in the Ray dashboard")
