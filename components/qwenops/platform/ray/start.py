"""Connect to Ray, or start a node on this machine, again where the machine was too busy for it."""

import contextlib
import logging
import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import psutil
import ray

from qwenops.platform.context import RunContext

# A laptop's share of an 8 GB machine: two CPUs, 300 MB of shared memory.
_LOCAL_CPUS = 2
_LOCAL_STORE_BYTES = 300_000_000
# Ray would give a piece that kills its worker (a document too large for memory, say) to new workers for ever.
RETRIES = 3
_STARTS = 3


def connect(context: RunContext) -> None:
    """Connect this process to Ray: the run's (`context.ray_address`), or a small local one. Repeats safely."""
    if not ray.is_initialized():
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # Ray's own default is for ever; see `RETRIES`.
        os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))
        local = {"num_cpus": _LOCAL_CPUS, "object_store_memory": _LOCAL_STORE_BYTES, "include_dashboard": False}
        where: dict[str, Any] = {"address": context.ray_address} if context.ray_address else local
        with warnings.catch_warnings():
            # Ray 2.60 warns about its own future defaults; nothing of it is ours to act on.
            warnings.simplefilter("ignore", FutureWarning)
            # A driver on a cluster (address "auto") prints its workers' output too: it is the step's log.
            show = context.ray_address == "auto"
            retry_start(
                partial(ray.init, logging_level=logging.ERROR, log_to_driver=show, configure_logging=False, **where)
            )


def retry_start(start: Callable[[], object]) -> None:
    """Call `start` again where the node took longer than the half minute that Ray gives it, as on a busy machine.

    Args:
        start: Starts Ray in this process. What it leaves below this process when it fails is killed.

    Raises:
        Exception: as `start` raised it, for another reason or for the third time.
    """
    for left in reversed(range(_STARTS)):
        before = set(psutil.Process().children(recursive=True))
        try:
            start()
        except Exception as error:
            if not left or "timed out" not in str(error):
                raise
            for process in set(psutil.Process().children(recursive=True)) - before:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        else:
            return
