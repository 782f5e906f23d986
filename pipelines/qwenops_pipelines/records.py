"""Run records as their readers see them: `qwenops show` and `compare` print them, `chat` and `review` follow them.

Any file may be called run.json, so what is read of one is checked first; `record.py` says how one is made.
"""

from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from qwenops.contracts.metrics import find_metric
from qwenops.errors import RecipeError
from qwenops_pipelines.dags.nodes import NODES


class Output(BaseModel):
    """An artifact of a stage: where it lies."""

    path: str = Field(min_length=1)


class StageRecord(BaseModel):
    """What is read of one stage."""

    status: str
    seconds: float
    metrics: dict[str, float]
    warnings: list[str]
    outputs: dict[str, Output] = Field(default_factory=dict)


class ModelRecord(BaseModel):
    """What is read of the exported model; `path` is empty where the run ended before it."""

    path: str = ""


class ErrorRecord(BaseModel):
    """What failed first; `task` is empty where nobody knows."""

    task: str
    message: str


class RunRecord(BaseModel):
    """What is read of a record; further fields are left alone."""

    run_name: str
    recipe: str
    status: str
    seconds: float
    stages: dict[str, StageRecord]
    model: ModelRecord = ModelRecord()
    error: ErrorRecord | None = None


def read_record(folder: Path) -> RunRecord:
    """The record of the run in `folder`.

    Raises:
        RecipeError: there is none, or the file is no record of ours.
    """
    try:
        return RunRecord.model_validate_json((folder / "run.json").read_bytes())
    except (OSError, ValidationError) as error:
        found = error
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            found = f"{'.'.join(map(str, first['loc'])) or 'run.json'}: {first['msg']}"
        raise RecipeError(
            f"{folder} holds no run record",
            expected="a folder that `qwenops run` wrote",
            found=found,
            action="give the folder that was --out",
        ) from None


def show(record: RunRecord) -> None:
    """Print every figure of a run."""
    print(f"{record.run_name}  recipe {record.recipe}  {record.status}  {record.seconds:.0f} s")
    if record.error:
        print(f"{record.error.task or 'run'} failed: {record.error.message}")
    for name, stage in record.stages.items():
        print(f"\n{name}  {stage.status}  {stage.seconds:.1f} s")
        for metric, value in sorted(stage.metrics.items()):
            print(f"  {metric:<44} {value:>12.4g} {_unit(metric)}")
        for warning in stage.warnings:
            print(f"  warning: {warning}")


def compare(left: RunRecord, right: RunRecord) -> None:
    """Print the figures in which two runs differ, side by side."""
    print(f"{'':<58} {left.run_name:>14} {right.run_name:>14}")
    nothing = StageRecord(status="", seconds=0.0, metrics={}, warnings=[])
    for name in (node.name for node in NODES):
        first, second = (record.stages.get(name, nothing) for record in (left, right))
        _row(f"{name} seconds", first.seconds, second.seconds)
        for metric in sorted({*first.metrics, *second.metrics}):
            _row(f"{name} {metric}", first.metrics.get(metric), second.metrics.get(metric))


def _row(label: str, left: float | None, right: float | None) -> None:
    if left != right:
        cells = [f"{value:>14.4g}" if value is not None else f"{'-':>14}" for value in (left, right)]
        print(f"{label:<58} {' '.join(cells)}")


def _unit(metric: str) -> str:
    listed = find_metric(metric)
    return listed.unit if listed else ""
