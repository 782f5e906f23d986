"""Experiments and runs of MLflow: made where they are missing, whoever else makes them at the same moment.

An injected `MLFLOW_RUN_ID` (a shell's, a notebook's or Kubeflow's MLflow plugin's) names a run that is logged into.
"""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)

from qwenops.errors import PlatformError
from qwenops.platform.context import RunContext
from qwenops.platform.secrets import redact
from qwenops.recipe.codec import Plain

EXPERIMENT = "qwenops"
# MLflow's own name for it; a namespace that shares a server sets it, so that its runs stand apart.
EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
INJECTED_RUN = "MLFLOW_RUN_ID"
# Limits of MLflow's tracking API (mlflow.utils.validation).
PARAMS_PER_BATCH = 100
_METRICS_PER_BATCH, _PARAM_LENGTH = 900, 6000
_FORBIDDEN = re.compile(r"[^\w\-. :/]")
_EXISTS = ErrorCode.Name(RESOURCE_ALREADY_EXISTS)
_UNKNOWN_RUN = (ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), ErrorCode.Name(INVALID_PARAMETER_VALUE))


def already_there(error: MlflowException) -> bool:
    """Whether somebody else was first to make what was to be made."""
    return error.error_code == _EXISTS


def create_run(client: MlflowClient, artifact_root: str, run_name: str) -> str:
    """Make a run in the experiment of this machine or namespace, and the experiment when it is new; returns its id."""
    name = os.environ.get(EXPERIMENT_VARIABLE) or EXPERIMENT
    experiment_id = _experiment(client, name) or _create_experiment(client, name, artifact_root)
    return client.create_run(experiment_id, run_name=run_name).info.run_id


def nested_run(client: MlflowClient, context: RunContext, node: str) -> str:
    """Make a run below the pipeline run's, or one by itself where there is none; returns its id."""
    if not context.parent_run_id:
        return create_run(client, "", node)
    parent = client.get_run(context.parent_run_id)
    tags = {"mlflow.parentRunId": context.parent_run_id}
    return client.create_run(parent.info.experiment_id, run_name=node, tags=tags).info.run_id


def injected_run(client: MlflowClient) -> str:
    """The run that `MLFLOW_RUN_ID` names, where this server has it and it takes figures; else ""."""
    run_id = os.environ.get(INJECTED_RUN, "")
    try:
        return run_id if run_id and client.get_run(run_id).info.lifecycle_stage == "active" else ""
    except MlflowException as error:
        if error.error_code in _UNKNOWN_RUN:
            return ""
        raise


def own_run(client: MlflowClient, context: RunContext) -> str:
    """The run injected for this step alone; where one variable reaches every step, it names the parent of them all."""
    return "" if os.environ.get(INJECTED_RUN) == context.parent_run_id else injected_run(client)


def log(
    client: MlflowClient,
    run_id: str,
    *,
    params: Mapping[str, str] | None = None,
    metrics: Sequence[Metric] = (),
    tags: Mapping[str, str] | None = None,
) -> None:
    """Log texts without secrets and figures that are finite numbers, in batches that MLflow takes."""
    labels = [RunTag(clean(key), redact(value)[:_PARAM_LENGTH]) for key, value in (tags or {}).items()]
    values = [Param(clean(key), redact(value)[:_PARAM_LENGTH]) for key, value in (params or {}).items()]
    figures = [metric for metric in metrics if math.isfinite(metric.value)]
    for start in range(0, max(len(values), 1), PARAMS_PER_BATCH):
        client.log_batch(run_id, params=values[start : start + PARAMS_PER_BATCH], tags=labels if start == 0 else ())
    for start in range(0, len(figures), _METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=figures[start : start + _METRICS_PER_BATCH])


def flatten(config: Mapping[str, Plain], prefix: str = "") -> dict[str, str]:
    """Nested plain data as dotted keys and text values: `{"a": {"b": 1}}` is `{"a.b": "1"}`."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            flat |= flatten(value, name)
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat


def clean(name: str) -> str:
    """`name` with what MLflow allows in no name replaced by underscores."""
    return _FORBIDDEN.sub("_", name)


def _experiment(client: MlflowClient, name: str) -> str:
    """Id of the active experiment of that name; empty where there is none."""
    found = client.get_experiment_by_name(name)
    return _usable(found).experiment_id if found else ""


def _create_experiment(client: MlflowClient, name: str, artifact_root: str) -> str:
    root = artifact_root if "://" in artifact_root or not artifact_root else Path(artifact_root).resolve().as_uri()
    try:
        return client.create_experiment(name, artifact_location=root or None)
    except MlflowException as error:
        # Another first run was faster.
        if not already_there(error) or not (made := _experiment(client, name)):
            raise
        return made


def _usable(experiment: Experiment) -> Experiment:
    if experiment.lifecycle_stage != "active":
        raise PlatformError(
            f"MLflow's experiment {experiment.name} was deleted",
            expected="an active experiment",
            found=experiment.lifecycle_stage,
            action="restore it: mlflow experiments restore --experiment-id " + experiment.experiment_id,
        )
    return experiment
