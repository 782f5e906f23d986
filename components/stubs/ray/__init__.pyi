"""What this project uses of Ray, whose own annotations leave out what its tasks take and give."""

from collections.abc import Callable
from typing import Generic, TypeVar

from ray import data as data
from ray import exceptions as exceptions
from ray import train as train

T = TypeVar("T")

class ObjectRef(Generic[T]): ...

class RemoteFunction(Generic[T]):
    def remote(self, *args: object) -> ObjectRef[T]: ...

class RuntimeContext:
    @property
    def gcs_address(self) -> str: ...

def init(
    address: str | None = ...,
    *,
    num_cpus: int | None = ...,
    object_store_memory: int | None = ...,
    include_dashboard: bool | None = ...,
    logging_level: int = ...,
    log_to_driver: bool | None = ...,
    configure_logging: bool = ...,
    _temp_dir: str | None = ...,
) -> object: ...
def is_initialized() -> bool: ...
def shutdown() -> None: ...
def get(object_refs: ObjectRef[T]) -> T: ...
def put(value: T) -> ObjectRef[T]: ...
def wait(
    ray_waitables: list[ObjectRef[T]], *, num_returns: int = ...
) -> tuple[list[ObjectRef[T]], list[ObjectRef[T]]]: ...
def remote(*, num_cpus: float = ..., num_gpus: float = ...) -> Callable[[Callable[..., T]], RemoteFunction[T]]: ...
def get_runtime_context() -> RuntimeContext: ...
