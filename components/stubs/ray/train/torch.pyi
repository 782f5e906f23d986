from collections.abc import Callable
from typing import Any, Literal

from ray.train import Result, RunConfig, ScalingConfig

class TorchConfig:
    def __init__(self, *, backend: Literal["gloo", "nccl"]) -> None: ...

class TorchTrainer:
    def __init__(
        self,
        train_loop_per_worker: Callable[[dict[str, Any]], object],
        *,
        train_loop_config: dict[str, Any],
        torch_config: TorchConfig,
        scaling_config: ScalingConfig,
        run_config: RunConfig,
    ) -> None: ...
    def fit(self) -> Result: ...
