from enum import Enum
from typing import Literal

class SourceType:
    LOCAL: int
    @staticmethod
    def to_string(status: int) -> str: ...

class Experiment:
    experiment_id: str
    name: str
    lifecycle_stage: Literal["active", "deleted"]

class RunInfo:
    run_id: str
    experiment_id: str
    lifecycle_stage: Literal["active", "deleted"]
    artifact_uri: str

class RunData:
    params: dict[str, str]
    tags: dict[str, str]

class Run:
    info: RunInfo
    data: RunData

class Metric:
    value: float
    def __init__(self, key: str, value: float, timestamp: int, step: int, *, model_id: str | None = ...) -> None: ...

class Param:
    def __init__(self, key: str, value: str) -> None: ...

class RunTag:
    def __init__(self, key: str, value: str) -> None: ...

class InputTag:
    def __init__(self, key: str, value: str) -> None: ...

class Dataset:
    def __init__(self, name: str, digest: str, source_type: str, source: str, profile: str | None = ...) -> None: ...

class DatasetInput:
    def __init__(self, dataset: Dataset, tags: list[InputTag] | None = ...) -> None: ...

class LoggedModel:
    model_id: str

class LoggedModelInput:
    def __init__(self, model_id: str) -> None: ...

class LoggedModelOutput:
    def __init__(self, model_id: str, step: int) -> None: ...

class LoggedModelStatus(Enum):
    READY = "READY"

class ModelVersion:
    version: str
    tags: dict[str, str]

class RegisteredModel:
    aliases: dict[str, str]
