"""Whose fault it is that workers of a training failed: after the platform's it goes on, the stage's own ends it.

A worker that is killed takes the others with it: their next collective meets a closed connection, and the error of a
survivor may be seen first. So a broken connection is never a stage's own fault, and a worker that went away never is.
"""

import re
from collections.abc import Mapping

import ray.train
from torch.distributed import DistError

from qwenops.errors import FAMILIES, PlatformError, QwenOpsError, StageError

MOST_REPLACED = 3
"""Times that a training may lose workers and go on. House choice: as many as a step starts RayJobs, each of which pays
for what was trained since the last checkpoint; a node that is drained costs none of them."""
# Ray Train's names for a worker that went away: its process died, its node was taken, it does not answer.
_LOST = {"WorkerHealthCheckFailedError", "WorkerHealthCheckTimeoutError"}
# Paths that a stage was given or made; a full disk or a store that does not answer is the machine's.
_WRONG_PATH = FileNotFoundError | FileExistsError | IsADirectoryError | NotADirectoryError
# Gloo reports what it sees of other workers as a plain RuntimeError.
_CONNECTION = re.compile(
    r"gloo|nccl|process ?group|connection (closed|reset|refused)|broken pipe|socket", re.IGNORECASE
)


class EndOnOwnFault(ray.train.UserCallback):
    """Ends a training, whatever Ray Train's retries, with the stage's own error; says when it goes on without."""

    def __init__(self, name: str) -> None:
        self._name = name

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train's controller after a poll that found errors; an error from here ends the training."""
        fault = own_fault(worker_exceptions, self._name)
        if fault is not None:
            raise fault
        print(f"[{self._name}] {platform_fault(worker_exceptions, self._name).message}", flush=True)


def own_fault(failures: Mapping[int, Exception], name: str) -> QwenOpsError | None:
    """The stage's own error among those of its workers; None where the platform took one.

    Args:
        failures: Rank to what Ray Train found of that worker.
        name: Names the training.
    """
    causes = {rank: _cause(failure) for rank, failure in sorted(failures.items())}
    for cause in causes.values():
        if isinstance(cause, QwenOpsError) and not isinstance(cause, PlatformError):
            return _family(cause)(cause.message, expected=cause.expected, found=cause.found, action=cause.action)
    if any(_is_lost(failure) for failure in failures.values()):
        return None
    for rank, cause in causes.items():
        if not _is_of_the_platform(cause):
            action = "read the worker's log in the Ray dashboard"
            return _family(cause)(f"worker {rank} of {name} failed", found=cause, action=action)
    return None


def platform_fault(failures: Mapping[int, Exception], name: str) -> PlatformError:
    """The error of a training whose workers the platform took."""
    rank, failure = min(failures.items(), key=lambda item: (not _is_lost(item[1]), item[0]))
    cause = _cause(failure)
    if isinstance(cause, PlatformError):
        return PlatformError(cause.message, expected=cause.expected, found=cause.found, action=cause.action)
    if _is_lost(failure):
        what = "was lost"
    else:
        what = "lost its connection" if _is_broken_connection(cause) else "met a fault of its machine"
    return PlatformError(
        f"worker {rank} of {name} {what}",
        expected=f"workers that live as long as the training, or are lost {MOST_REPLACED} times at most",
        found=cause,
        action="run again, it continues from the last checkpoint; ask for more memory if it was killed for it",
    )


def _cause(failure: Exception) -> Exception:
    return getattr(failure, "cause", None) or failure


def _is_lost(failure: Exception) -> bool:
    return type(failure).__name__ in _LOST


def _is_of_the_platform(cause: Exception) -> bool:
    if isinstance(cause, _WRONG_PATH):
        return False
    return isinstance(cause, PlatformError | OSError) or _is_broken_connection(cause)


def _is_broken_connection(cause: Exception) -> bool:
    if isinstance(cause, DistError | ConnectionError | TimeoutError):
        return True
    return isinstance(cause, RuntimeError) and _CONNECTION.search(str(cause)) is not None


def _family(cause: Exception) -> type[QwenOpsError]:
    """The family of an error, also of one that Ray wrapped and renamed: `RayTaskError(ContractError)`."""
    return FAMILIES.get(type(cause).__name__.split("(")[-1].rstrip(")"), StageError)
