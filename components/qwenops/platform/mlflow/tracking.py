"""The MLflow record of a run: a parent run per pipeline run, a nested run per stage, models, data by digest.

Only `MlflowClient` and plain entities are used, never the fluent API: nothing depends on a global active run,
and a nested run costs about ten small writes. A tracking store that cannot be used stops a run before it starts; later
it costs the run seconds, a warning and its record, never the finished training (`outage.py`).
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

# MLflow reads these while it is imported; a run on somebody's laptop sends no telemetry, and the console is the run's.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from qwenops.contracts.json_text import replace_not_finite
from qwenops.contracts.manifest import Manifest, read_manifest
from qwenops.errors import PlatformError
from qwenops.platform.context import RunContext
from qwenops.platform.mlflow.facts import hardware_tags, source_tags
from qwenops.platform.mlflow.lineage import dataset, log_lineage, made_at, stage_metrics
from qwenops.platform.mlflow.outage import note_missing, record_or_warn, take_missing, warn
from qwenops.platform.mlflow.runs import (
    INJECTED_RUN,
    clean,
    create_run,
    flatten,
    injected_run,
    log,
    nested_run,
    own_run,
)
from qwenops.platform.mlflow.server import check_reachable, is_server, short_timeouts
from qwenops.platform.secrets import redact_all
from qwenops.platform.storage import addresses

CURVES = "curves.jsonl"
ARTIFACTS = ("summary.md", "gate/*.html", "gate/*.json", "report.html", CURVES)
_ARTIFACT_BYTES = 5 << 20

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

    It holds whose run it is, the commit of the code, the recipe's name and fingerprint, its settings as parameters and
    all of it as `recipe.json`; an injected `MLFLOW_RUN_ID` is logged into and returned instead of a new run, and what
    it holds already stays. One that this server does not have is left with a warning.

    Args:
        tracking_uri: For example `sqlite:////runs/mlflow.db` or `http://mlflow:5000`.
        artifact_root: Where the experiment keeps small artifacts; used when the experiment is new. A plain
            path is made a `file://` URI. A server decides for itself.
        run_name: Shown in the UI.
        recipe_name: For example `tiny`.
        fingerprint: Fingerprint of the whole recipe.
        params: The recipe as plain data; nested keys are joined by dots.
        tags: Further tags, for example `kfp.pipeline_run_id` or what it runs on.

    Raises:
        PlatformError: the server or its database cannot be used.
    """
    labels = {"qwenops.recipe": recipe_name, "qwenops.fingerprint": fingerprint, **(tags or {})}
    check_reachable(tracking_uri)
    try:
        with short_timeouts():
            client = MlflowClient(tracking_uri)
            injected = injected_run(client)
            if os.environ.get(INJECTED_RUN) and not injected:
                warn("mlflow", f"{INJECTED_RUN} names no run that is active at {tracking_uri}; a new one is opened")
            root = "" if is_server(tracking_uri) else artifact_root
            run_id = injected or create_run(client, root, run_name)
            known = client.get_run(run_id).data if injected else None
            values = {
                name: value for name, value in flatten(params).items() if not known or clean(name) not in known.params
            }
            source = {name: value for name, value in source_tags().items() if not known or name not in known.tags}
            log(client, run_id, params=values, tags={**source, **labels})
            client.log_dict(run_id, redact_all(params), "recipe.json")
    except (MlflowException, OSError) as error:
        raise PlatformError(
            "MLflow cannot be used",
            expected=f"a writable tracking store at {tracking_uri}",
            found=error,
            action="correct the tracking URI, upgrade the database (mlflow db upgrade), or run without tracking",
        ) from error
    return run_id


def close_run(
    context: RunContext,
    status: str,
    run_record: Mapping[str, Any],
    folder: Path,
    artifacts: Mapping[str, Path],
    data: Sequence[str] = (),
) -> None:
    """End the parent run: status, every stage's figures as `stage/metric`, training data, the record, the report page.

    The figures are repeated here because a reused stage has no nested run in this run; so parent runs can always
    be compared with each other. Stages that MLflow lacks because it did not answer are recorded first.

    Args:
        context: Names the store, the parent run, and the events that say which stages it lacks.
        status: MLflow's word: "FINISHED", "FAILED" or "KILLED".
        run_record: The record that `run.json` holds.
        folder: Where `run.json` and, when one was written, `report.html` lie.
        artifacts: Node to the folder of its published artifact.
        data: Nodes whose artifacts are training data of this run.
    """
    stages: Mapping[str, Any] = run_record.get("stages", {})

    def work(client: MlflowClient) -> None:
        run_id = context.parent_run_id
        model: Mapping[str, Any] = run_record.get("model") or {}
        gate: Mapping[str, Any] = model.get("gate") or {}
        tags = {"qwenops.status": status} | ({"qwenops.gate": _verdict(gate["passed"])} if "passed" in gate else {})
        log(client, run_id, metrics=list(_now(_figures(run_record))), tags=tags)
        found = [dataset(read_manifest(artifacts[node]), _place(stages, node), node) for node in data]
        if found:
            client.log_inputs(run_id, found)
        client.log_dict(run_id, replace_not_finite(redact_all(run_record)), "run.json")
        if (folder / "report.html").is_file():
            client.log_artifact(run_id, str(folder / "report.html"))
        if run_id != os.environ.get(INJECTED_RUN):
            client.set_terminated(run_id, status)

    lacks = f"MLflow lacks the end of this run, whose figures are all in {folder / 'run.json'}"
    if record_or_warn(context, "mlflow", lacks, lambda _: None, ask=True):
        for node, stage in take_missing(context).items():
            if node in artifacts:
                log_stage(stage, read_manifest(artifacts[node]), artifacts[node])
        record_or_warn(context, "mlflow", lacks, work)


def open_stage(context: RunContext, node: str) -> str:
    """Open the run of a stage before it runs, for what is recorded meanwhile; returns its id, or "" with a warning."""
    opened: list[str] = []

    def work(client: MlflowClient) -> None:
        opened.append(own_run(client, context) or nested_run(client, context, node))

    record_or_warn(context, node, "MLflow has no run of this stage while it runs and no figures of its machine", work)
    return opened[0] if opened else ""


def fail_stage(context: RunContext, node: str) -> None:
    """End the run that `open_stage` opened, as failed; an injected run is left to whoever opened it."""
    if context.stage_run_id and context.stage_run_id != os.environ.get(INJECTED_RUN):
        record_or_warn(
            context,
            node,
            f"the run {context.stage_run_id} stays open in MLflow",
            lambda client: client.set_terminated(context.stage_run_id, "FAILED"),
        )


def log_stage(context: RunContext, manifest: Manifest, path: Path) -> None:
    """Log one published stage as a run nested under the pipeline's run, or into the run injected for this very step.

    A run that `open_stage` opened is used.

    Args:
        context: Tracking URI and parent run.
        manifest: The stage's manifest.
        path: The published folder.
    """

    def work(client: MlflowClient) -> None:
        injected = own_run(client, context)
        run_id = injected or context.stage_run_id or nested_run(client, context, manifest.node)
        log(
            client,
            run_id,
            params=flatten(manifest.config),
            metrics=[*stage_metrics(manifest), *read_curves(path / CURVES, made_at(manifest))],
            tags={**_stage_tags(manifest, addresses.address_of(path, context)), **hardware_tags()},
        )
        experiment_id = client.get_run(run_id).info.experiment_id
        log_lineage(client, context, experiment_id, run_id, manifest, path)
        for pattern in ARTIFACTS:
            for file in sorted(path.glob(pattern)):
                if file.stat().st_size <= _ARTIFACT_BYTES:
                    parent = str(file.parent.relative_to(path))
                    client.log_artifact(run_id, str(file), None if parent == "." else parent)
        if not injected:
            client.set_terminated(run_id, "FINISHED")

    lacks = f"MLflow has no full record of this stage, whose figures are in {path / 'manifest.json'} and in run.json"
    if not record_or_warn(context, manifest.node, lacks, work):
        note_missing(context, manifest.node)


def read_curves(path: Path, timestamp: int) -> Iterator[Metric]:
    """The points of a stage's `curves.jsonl` as MLflow metrics; nothing when there is no such file."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            point = json.loads(line)
            yield Metric("curve/" + clean(point["name"]), point["value"], timestamp, point["step"])


def _figures(run_record: Mapping[str, Any]) -> dict[str, float]:
    stages: Mapping[str, Any] = run_record.get("stages", {})
    figures = {
        f"{stage}/{name}": value for stage, facts in stages.items() for name, value in facts.get("metrics", {}).items()
    }
    figures |= {f"{stage}/seconds": facts["seconds"] for stage, facts in stages.items() if "seconds" in facts}
    return figures | {name: run_record[name] for name in ("seconds", "overhead_seconds") if name in run_record}


def _place(stages: Mapping[str, Any], node: str) -> str:
    return stages[node]["outputs"]["output"]["path"]


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


def _now(figures: Mapping[str, float]) -> Iterator[Metric]:
    when = int(datetime.now().timestamp() * 1000)
    for name, value in figures.items():
        yield Metric(clean(name), float(value), when, 0)


def _verdict(passed: bool) -> str:
    return "passed" if passed else "failed"
