from collections.abc import Sequence
from typing import Any

class WorkerGroupError(Exception):
    worker_failures: dict[int, Exception]

class ControllerError(Exception):
    controller_failure: Exception

class UserCallback:
    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None: ...

class ScalingConfig:
    def __init__(self, *, num_workers: int, use_gpu: bool = ...) -> None: ...

class FailureConfig:
    def __init__(self, *, max_failures: int = ...) -> None: ...

class RunConfig:
    def __init__(
        self,
        *,
        name: str,
        storage_path: str,
        failure_config: FailureConfig = ...,
        callbacks: Sequence[UserCallback] = ...,
    ) -> None: ...

class TrainContext:
    def get_node_rank(self) -> int: ...
    def get_local_rank(self) -> int: ...

class Result:
    @property
    def return_value(self) -> Any: ...

def get_context() -> TrainContext: ...
def get_preemption_info() -> object | None: ...
