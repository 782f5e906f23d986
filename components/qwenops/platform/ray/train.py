"""Run a training loop through Ray Train: in this process on a laptop, on workers with GPUs in a cluster.

What a loop needs to continue lies in its own checkpoints (`training/checkpoint.py`). So Ray Train replaces workers that
were lost, or whose node is drained, and the loop goes on from there; a run that lost its driver, or too many workers,
is continued by launching it again.
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from qwenops.errors import PlatformError, QwenOpsError
from qwenops.platform.context import RunContext
from qwenops.platform.observe.observed import observe_worker
from qwenops.platform.ray.failures import MOST_REPLACED, EndOnOwnFault, own_fault, platform_fault
from qwenops.platform.ray.preemption import DrainNotice, SignalNotice
from qwenops.platform.ray.start import connect
from qwenops.training.preemption import watching_notice


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
        QwenOpsError: what the loop raised, StageError for any other failure of the loop, PlatformError where workers
            were lost more than `MOST_REPLACED` times.
    """
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    if context.num_workers:
        connect(context)
    trainer = TorchTrainer(
        partial(_watched, loop, context, name) if context.num_workers else loop,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if context.use_gpu == "yes" else "gloo"),
        scaling_config=ray.train.ScalingConfig(num_workers=context.num_workers, use_gpu=context.use_gpu == "yes"),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(storage.resolve()),
            failure_config=ray.train.FailureConfig(max_failures=MOST_REPLACED if context.num_workers else 0),
            callbacks=[EndOnOwnFault(name)] if context.num_workers else [],
        ),
    )
    notice = SignalNotice()
    try:
        with notice.installed(), watching_notice(notice):
            result = trainer.fit()
    except ray.train.WorkerGroupError as error:
        failures = error.worker_failures
        raise (own_fault(failures, name) or platform_fault(failures, name)) from error
    except ray.train.ControllerError as error:
        if isinstance(error.controller_failure, QwenOpsError):
            raise error.controller_failure from error
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
    with observe_worker(context, name, machine), watching_notice(DrainNotice()):
        return loop(config)
