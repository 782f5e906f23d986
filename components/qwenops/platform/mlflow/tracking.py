"""The MLflow record of a run: a parent run per pipeline run, a nested run per stage, models, data by digest.

Only `MlflowClient` and plain entities are used, never the fluent API: nothing depends on a global active run,
and a nested run costs about ten small writes. Weights never travel through the server (mlflow#6994): a kept
checkpoint becomes a LoggedModel that points at its folder. A tracking server that cannot be reached costs the
run its record and a printed warning, never the finished training.
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

# MLflow reads both while it is imported; a run on somebody's laptop sends no telemetry.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode

from qwenops.contracts.manifest import Manifest, read_manifest
from qwenops.errors import PlatformError
from qwenops.platform.context import RunContext
from qwenops.platform.logs import event
from qwenops.platform.mlflow.server import impatient, is_server, reach
from qwenops.platform.secrets import redact, redact_all
from qwenops.platform.storage import addresses

EXPERIMENT = "qwenops"
# MLflow's own name for it; a namespace that shares a server sets it, so that its runs stand apart.
EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
CURVES = "curves.jsonl"
ARTIFACTS = ("summary.md", "gate/*.html", "gate/*.json", "report.html", CURVES)
INJECTED_RUN = "MLFLOW_RUN_ID"
_FORBIDDEN = re.compile(r"[^\w\-. :/]")
# Limits of MLflow's tracking API (mlflow.utils.validation).
_METRICS_PER_BATCH, _PARAMS_PER_BATCH, _PARAM_LENGTH, _DIGEST_LENGTH = 900, 100, 6000, 36
_ARTIFACT_BYTES = 5 << 20
_UNKNOWN_RUN = (ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), ErrorCode.Name(INVALID_PARAMETER_VALUE))

logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow.store.db").setLevel(logging.WARNING)


def open_run(
    tracking_uri: str,
    artifact_root: str,
    run_name: str,
    recipe_name: str,
    fingerprint: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str] | None = None,
) -> str:
    """Open the parent run of one pipeline run and return its id.

    An injected `MLFLOW_RUN_ID` (a shell's, a notebook's or Kubeflow's MLflow plugin's) is logged into and returned
    instead of a new run; what it holds already stays. One that this server does not have is left with a warning.

    Args:
        tracking_uri: For example `sqlite:////runs/mlflow.db` or `http://mlflow:5000`.
        artifact_root: Where the experiment keeps small artifacts; used when the experiment is new. A plain
            path is made a `file://` URI. A server decides for itself.
        run_name: Shown in the UI.
        recipe_name: For example `tiny`.
        fingerprint: Fingerprint of the whole recipe.
        params: The recipe as plain data; nested keys are joined by dots.
        tags: Further tags, for example `kfp.pipeline_run_id`.

    Raises:
        PlatformError: the server or its database cannot be used.
    """
    labels = {"qwenops.recipe": recipe_name, "qwenops.fingerprint": fingerprint, **(tags or {})}
    reach(tracking_uri)
    try:
        with impatient():
            client = MlflowClient(tracking_uri)
            injected = _injected_run(client)
            if os.environ.get(INJECTED_RUN) and not injected:
                _warn("mlflow", f"{INJECTED_RUN} names no run that is active at {tracking_uri}; a new one is opened")
            root = "" if is_server(tracking_uri) else artifact_root
            run_id = injected or create_run(client, root, run_name)
            known = client.get_run(run_id).data.params if injected else {}
            values = {name: value for name, value in flatten(params).items() if _name(name) not in known}
            _log(client, run_id, params=values, tags=labels)
            client.log_dict(run_id, redact_all(params), "recipe.json")
    except (MlflowException, OSError) as error:
        raise PlatformError(
            "MLflow cannot be used",
            expected=f"a writable tracking store at {tracking_uri}",
            found=error,
            action="correct the tracking URI, upgrade the database (mlflow db upgrade), or run without tracking",
        ) from error
    return run_id


def close_run(tracking_uri: str, run_id: str, status: str, run_record: Mapping[str, Any], report: Path | None) -> None:
    """End the parent run: its status, every stage's figures as `stage/metric`, the record and the report page.

    The figures are repeated here because a reused stage has no nested run in this run; so parent runs can always
    be compared with each other.

    Args:
        tracking_uri: As given to `open_run`.
        run_id: As returned by `open_run`.
        status: MLflow's word: "FINISHED", "FAILED" or "KILLED".
        run_record: The record that `run.json` holds.
        report: The report page, when one was written.
    """
    try:
        client = MlflowClient(tracking_uri)
        stages: Mapping[str, Any] = run_record.get("stages", {})
        figures = {
            f"{stage}/{name}": value
            for stage, facts in stages.items()
            for name, value in facts.get("metrics", {}).items()
        }
        figures |= {f"{stage}/seconds": facts["seconds"] for stage, facts in stages.items() if "seconds" in facts}
        figures |= {name: run_record[name] for name in ("seconds", "overhead_seconds") if name in run_record}
        gate = (run_record.get("model") or {}).get("gate") or {}
        tags = {"qwenops.status": status} | ({"qwenops.gate": _verdict(gate["passed"])} if "passed" in gate else {})
        _log(client, run_id, metrics=list(_now(figures)), tags=tags)
        client.log_dict(run_id, redact_all(run_record), "run.json")
        if report is not None and report.is_file():
            client.log_artifact(run_id, str(report))
        if run_id != os.environ.get(INJECTED_RUN):
            client.set_terminated(run_id, status)
    except (MlflowException, OSError) as error:
        _warn("mlflow", f"the run's record is incomplete at {tracking_uri}: {error}")


def open_stage(context: RunContext, node: str) -> str:
    """Open the run of a stage before it runs, for what is recorded meanwhile; returns its id, or "" with a warning."""
    try:
        client = MlflowClient(context.tracking_uri)
        return _own_run(client, context) or _nested_run(client, context, node)
    except (MlflowException, OSError) as error:
        _warn(node, f"MLflow has no run of this stage while it runs: {error}")
        return ""


def fail_stage(context: RunContext) -> None:
    """End the run that `open_stage` opened, as failed; an injected run is left to whoever opened it."""
    if context.stage_run_id and context.stage_run_id != os.environ.get(INJECTED_RUN):
        try:
            MlflowClient(context.tracking_uri).set_terminated(context.stage_run_id, "FAILED")
        except (MlflowException, OSError) as error:
            _warn("mlflow", f"the run {context.stage_run_id} stays open: {error}")


def log_stage(context: RunContext, manifest: Manifest, path: Path) -> None:
    """Log one published stage as a run nested under the pipeline's run, or into the run injected for this very step.

    A run that `open_stage` opened is used.

    Args:
        context: Tracking URI and parent run.
        manifest: The stage's manifest.
        path: The published folder.
    """
    try:
        client = MlflowClient(context.tracking_uri)
        injected = _own_run(client, context)
        run_id = injected or context.stage_run_id or _nested_run(client, context, manifest.node)
        _log(
            client,
            run_id,
            params=flatten(manifest.config),
            metrics=[*_stage_metrics(manifest), *read_curves(path / CURVES, _milliseconds(manifest))],
            tags=_stage_tags(manifest, addresses.address_of(path, context)),
        )
        experiment_id = client.get_run(run_id).info.experiment_id
        _log_lineage(client, context, experiment_id, run_id, manifest, path)
        for pattern in ARTIFACTS:
            for file in sorted(path.glob(pattern)):
                if file.stat().st_size <= _ARTIFACT_BYTES:
                    parent = str(file.parent.relative_to(path))
                    client.log_artifact(run_id, str(file), None if parent == "." else parent)
        if not injected:
            client.set_terminated(run_id, "FINISHED")
    except (MlflowException, OSError) as error:
        _warn(manifest.node, f"MLflow has no full record of this stage: {error}")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested plain data as dotted keys and text values: `{"a": {"b": 1}}` is `{"a.b": "1"}`."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            flat |= flatten(value, name)
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat


def read_curves(path: Path, timestamp: int) -> Iterator[Metric]:
    """The points of a stage's `curves.jsonl` as MLflow metrics; nothing when there is no such file."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            point = json.loads(line)
            yield Metric("curve/" + _name(point["name"]), point["value"], timestamp, point["step"])


def _injected_run(client: MlflowClient) -> str:
    """The run that `MLFLOW_RUN_ID` names, where this server has it and it takes figures; else ""."""
    run_id = os.environ.get(INJECTED_RUN, "")
    try:
        return run_id if run_id and client.get_run(run_id).info.lifecycle_stage == "active" else ""
    except MlflowException as error:
        if error.error_code in _UNKNOWN_RUN:
            return ""
        raise


def _own_run(client: MlflowClient, context: RunContext) -> str:
    """The run injected for this step alone; where one variable reaches every step, it names the parent of them all."""
    return "" if os.environ.get(INJECTED_RUN) == context.parent_run_id else _injected_run(client)


def create_run(client: MlflowClient, artifact_root: str, run_name: str) -> str:
    """Make a run in the experiment of this machine or namespace, and the experiment when it is new; returns its id."""
    name = os.environ.get(EXPERIMENT_VARIABLE) or EXPERIMENT
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        root = artifact_root if "://" in artifact_root or not artifact_root else Path(artifact_root).resolve().as_uri()
        experiment_id = client.create_experiment(name, artifact_location=root or None)
    else:
        experiment_id = _usable(experiment).experiment_id
    return client.create_run(experiment_id, run_name=run_name).info.run_id


def _usable(experiment: Experiment) -> Experiment:
    if experiment.lifecycle_stage != "active":
        raise PlatformError(
            f"MLflow's experiment {experiment.name} was deleted",
            expected="an active experiment",
            found=experiment.lifecycle_stage,
            action="restore it: mlflow experiments restore --experiment-id " + experiment.experiment_id,
        )
    return experiment


def _nested_run(client: MlflowClient, context: RunContext, node: str) -> str:
    if not context.parent_run_id:
        return create_run(client, "", node)
    parent = client.get_run(context.parent_run_id)
    tags = {"mlflow.parentRunId": context.parent_run_id}
    return client.create_run(parent.info.experiment_id, run_name=node, tags=tags).info.run_id


def _log(
    client: MlflowClient,
    run_id: str,
    *,
    params: Mapping[str, str] | None = None,
    metrics: Sequence[Metric] = (),
    tags: Mapping[str, str] | None = None,
) -> None:
    labels = [RunTag(_name(key), redact(value)[:_PARAM_LENGTH]) for key, value in (tags or {}).items()]
    values = [Param(_name(key), redact(value)[:_PARAM_LENGTH]) for key, value in (params or {}).items()]
    for start in range(0, max(len(values), 1), _PARAMS_PER_BATCH):
        client.log_batch(run_id, params=values[start : start + _PARAMS_PER_BATCH], tags=labels if start == 0 else ())
    for start in range(0, len(metrics), _METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_BATCH])


def _log_lineage(
    client: MlflowClient, context: RunContext, experiment_id: str, run_id: str, manifest: Manifest, path: Path
) -> None:
    parents = manifest.inputs
    datasets = [_dataset(name, place, addresses.mirror(place, context)) for name, place in parents.items()]
    used = [
        model.model_id
        for name in parents
        for model in client.search_logged_models(
            [experiment_id], filter_string=f"tags.artifact_id = '{manifest.parents[name]}'", max_results=1
        )
    ]
    if datasets or used:
        client.log_inputs(run_id, datasets, [LoggedModelInput(model_id) for model_id in dict.fromkeys(used)])
    root = addresses.files_address(path, manifest.artifact_id, context)
    made = [
        _logged_model(client, experiment_id, run_id, manifest, folder, _below(root, folder.relative_to(path)))
        for folder in kept_checkpoints(path)
    ]
    if made:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, 0) for model_id in made])
    elif len(used) == 1:
        # An evaluation of one model: its figures also stand at the model they are about.
        _log(client, run_id, metrics=list(_stage_metrics(manifest, used[0])))


def kept_checkpoints(path: Path) -> list[Path]:
    """Folders at or below `path` that hold a transformers model: a `config.json` beside safetensors."""
    return [file.parent for file in sorted(path.rglob("config.json")) if any(file.parent.glob("*.safetensors"))]


def _below(root: str, relative: Path) -> str:
    return root if relative == Path() else f"{root}/{relative.as_posix()}"


def _logged_model(
    client: MlflowClient, experiment_id: str, run_id: str, manifest: Manifest, folder: Path, address: str
) -> str:
    tags = {
        "mlflow.model.isExternal": "true",
        "path": address,
        "digest": manifest.digest,
        "artifact_id": manifest.artifact_id,
        "fingerprint": manifest.fingerprint,
    }
    name = manifest.node if (folder / "checkpoint.json").exists() else f"{manifest.node}-{folder.name}"
    settings = dict(list(redact_all(flatten(manifest.config)).items())[:_PARAMS_PER_BATCH])
    model = client.create_logged_model(
        experiment_id, name=name, source_run_id=run_id, tags=tags, params=settings, model_type="checkpoint"
    )
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    _log(client, run_id, metrics=list(_stage_metrics(manifest, model.model_id)))
    return model.model_id


def _dataset(name: str, place: str, folder: Path) -> DatasetInput:
    manifest = read_manifest(folder)
    dataset = Dataset(
        name=manifest.node,
        digest=manifest.digest[:_DIGEST_LENGTH],
        source_type="s3" if addresses.is_remote(place) else "local",
        source=json.dumps({"uri": place}),
        profile=json.dumps({"records": manifest.records}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", name)])


def _stage_metrics(manifest: Manifest, model_id: str | None = None) -> Iterator[Metric]:
    when = _milliseconds(manifest)
    for name, value in {**manifest.metrics, "seconds": manifest.seconds, "records": manifest.records}.items():
        yield Metric(_name(name), float(value), when, 0, model_id=model_id)


def _stage_tags(manifest: Manifest, address: str) -> dict[str, str]:
    return {
        "qwenops.node": manifest.node,
        "qwenops.fingerprint": manifest.fingerprint,
        "qwenops.path": address,
        "qwenops.digest": manifest.digest,
        "qwenops.code_version": manifest.code_version,
        "qwenops.warnings": "\n".join(manifest.warnings),
        "qwenops.counts": json.dumps(manifest.counts),
    }


def _milliseconds(manifest: Manifest) -> int:
    return int(datetime.fromisoformat(manifest.created_at).timestamp() * 1000)


def _now(figures: Mapping[str, float]) -> Iterator[Metric]:
    when = int(datetime.now().timestamp() * 1000)
    for name, value in figures.items():
        yield Metric(_name(name), float(value), when, 0)


def _warn(node: str, sentence: str) -> None:
    sentence = redact(sentence)
    print(f"[{node}] warning: {sentence}", flush=True)
    event(sentence, level=logging.WARNING)


def _verdict(passed: bool) -> str:
    return "passed" if passed else "failed"


def _name(text: str) -> str:
    return _FORBIDDEN.sub("_", text)
