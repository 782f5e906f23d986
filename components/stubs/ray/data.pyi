from collections.abc import Callable, Iterator
from typing import Any

Row = dict[str, Any]

class ExecutionOptions:
    preserve_order: bool

class DataContext:
    enable_progress_bars: bool
    print_on_execution_start: bool
    execution_options: ExecutionOptions
    @staticmethod
    def get_current() -> DataContext: ...

class Dataset:
    def iter_rows(self) -> Iterator[Row]: ...
    def map(self, fn: Callable[[Row], Row], *, max_retries: int = ...) -> Dataset: ...

def from_items(items: list[Row], *, override_num_blocks: int | None = ...) -> Dataset: ...
