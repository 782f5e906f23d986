"""The run record: `run.json`, made from the events of a run and the manifests of its artifacts.

Both ends of a run come here, `qwenops run` on one machine and the last step of a pipeline on a cluster.
"""

import contextlib
import itertools
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import qwenops
from qwenops.contracts.json_text import replace_not_finite
from qwenops.contracts.manifest import Manifest, read_manifest
from qwenops.delivery.report.page import render
from qwenops.platform.context import RunContext
from qwenops.platform.observe.cost import cost_entry
from qwenops.platform.storage.artifacts import local_copy, write_text
from qwenops.recipe.codec import canonical, fingerprint
from qwenops.recipe.schema import Recipe
from qwenops_pipelines.dags.nodes import Node

SCHEMA_VERSION = 1
RECIPE = "recipe.json"
LATEST = "latest"
# Nodes whose artifacts a run's models were trained on, and where these come from.
_TRAINING_DATA = ("collect", "tokens", "evolve", "rank", "synthesize")


@dataclass(frozen=True)
class Clock:
    """When a run began and ended (seconds since the epoch), and the most memory its processes held at once."""

    began: float
    ended: float
    peak_resident_bytes: int = 0


def read_events(folder: Path) -> dict[str, dict[str, Any]]:
    """Node name to the facts its process recorded."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def build_record(
    recipe: Recipe,
    run_name: str,
    nodes: tuple[Node, ...],
    context: RunContext,
    clock: Clock,
    artifacts: Mapping[str, Path],
) -> dict[str, Any]:
    """Return the run record as plain data (its layout is in the README of `pipelines/`).

    Args:
        recipe: What ran.
        run_name: Its name.
        nodes: The nodes of its pipeline.
        context: Names the events.
        clock: When it ran.
        artifacts: From `artifact_folders`, which may fetch and verify; once is enough.
    """
    events = read_events(Path(context.events))
    manifests = {name: read_manifest(path) for name, path in artifacts.items()}
    stages = {node.name: _stage(node, events[node.name], manifests) for node in nodes if node.name in events}
    done = all(name in stages and stages[name]["status"] != "failed" for name in (node.name for node in nodes))
    return {
        **empty_record(run_name, clock, _first_error(stages, events)),
        "recipe": recipe.name,
        "fingerprint": fingerprint(recipe),
        "status": "succeeded" if done else "failed",
        "overhead_seconds": _overhead(events, clock),
        "stages": stages,
        "model": _model(artifacts, events),
        **cost_entry(stages, {node.name: node.area for node in nodes}, context.account),
    }


def empty_record(run_name: str, clock: Clock, error: Mapping[str, str] | None) -> dict[str, Any]:
    """The record of a run that failed before any stage began; `error` holds "task" and "message"."""
    seconds = clock.ended - clock.began
    return {
        "schema_version": SCHEMA_VERSION,
        "run_name": run_name,
        "recipe": "",
        "fingerprint": "",
        "code_version": qwenops.__version__,
        "status": "failed",
        "error": error,
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock.began)),
        "seconds": seconds,
        "overhead_seconds": seconds,
        "peak_resident_bytes": clock.peak_resident_bytes,
        "stages": {},
        "model": _model({}, {}),
    }


def publish_record(record: dict[str, Any], recipe: Recipe, artifacts: Mapping[str, Path], folder: Path) -> str:
    """Write `report.html`, `run.json` and `recipe.json` into `folder`; returns the report."""
    report = render(record, artifacts, folder)
    write_text(str(folder / "report.html"), report)
    write_record(record, folder)
    write_text(str(folder / RECIPE), canonical(recipe))
    return report


def keep_record(record: dict[str, Any], recipe: Recipe, artifacts: Mapping[str, Path], folder: Path) -> Path:
    """Publish the record once more in a folder of its own below `folder`, named by when the run began.

    What is published in `folder` itself takes the place of an earlier run's; `latest` points to the newest.

    Returns:
        The folder, such as `2026-11-30T14-05-09Z`.
    """
    began = record["started_at"].replace(":", "-")
    names = itertools.chain([began], (f"{began}.{number}" for number in itertools.count(2)))
    own = next(folder / name for name in names if not (folder / name).exists())
    publish_record(record, recipe, artifacts, own)
    pointer = folder / f".{LATEST}.{os.getpid()}"
    # A file system without links has the folders alone.
    with contextlib.suppress(OSError):
        pointer.symlink_to(own.name)
        pointer.replace(folder / LATEST)
    return own


def write_record(record: dict[str, Any], folder: Path) -> None:
    """Write `run.json` into `folder`, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(replace_not_finite(record), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(str(folder / "run.json"), text + "\n")


def close_tracking(
    record: dict[str, Any],
    context: RunContext,
    artifacts: Mapping[str, Path],
    folder: Path,
    otherwise: str = "FAILED",
) -> None:
    """Close the run's MLflow run, where it has one, with what `publish_record` wrote; `otherwise`: if it failed."""
    if context.tracking_uri and context.parent_run_id:
        status = "FINISHED" if record["status"] == "succeeded" else otherwise
        # MLflow takes seconds to import, which a fully reused run need not pay.
        from qwenops.platform.mlflow import tracking

        data = [node for node in _TRAINING_DATA if node in artifacts]
        tracking.close_run(context, status, record, folder, artifacts, data)


def artifact_folders(events: Mapping[str, Mapping[str, Any]], context: RunContext) -> dict[str, Path]:
    """Node name to the local folder of its published artifact, for the nodes that have one."""
    return {name: local_copy(facts["artifact"], context) for name, facts in events.items() if facts.get("artifact")}


def _stage(node: Node, facts: Mapping[str, Any], manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    status = "failed" if facts["status"] == "running" else facts["status"]
    manifest = manifests.get(node.name)
    if manifest is None:
        error = {key: facts["error"][key] for key in ("family", "message")} if "error" in facts else None
        return {
            "status": status,
            "seconds": _seconds(facts),
            "fingerprint": "",
            "inputs": {},
            "outputs": {},
            "metrics": {},
            "warnings": [],
            "error": error,
        }
    output = {"path": facts["artifact"], "digest": manifest.digest, "records": manifest.records}
    return {
        "status": status,
        "seconds": manifest.seconds if status == "skipped" else _seconds(facts),
        "fingerprint": manifest.fingerprint,
        "inputs": {name: manifests[source].digest for name, source in node.inputs.items() if source in manifests},
        "outputs": {"output": output},
        # An artifact that an earlier version made may hold a figure that is none.
        "metrics": {name: value for name, value in manifest.metrics.items() if math.isfinite(value)},
        "counts": dict(manifest.counts),
        "warnings": list(manifest.warnings),
    }


def _first_error(stages: Mapping[str, Any], events: Mapping[str, Mapping[str, Any]]) -> dict[str, str] | None:
    """Task and message of the stage that failed first; None where none did."""
    failed = [name for name, stage in stages.items() if stage["status"] == "failed"]
    if not failed:
        return None
    first = min(failed, key=lambda name: events[name].get("finished", math.inf))
    error = stages[first].get("error") or {"message": "it ended without saying why"}
    return {"task": first, "message": error["message"]}


def _seconds(facts: Mapping[str, Any]) -> float:
    return facts["run_finished"] - facts["run_started"] if "run_finished" in facts else 0.0


def _overhead(events: Mapping[str, Mapping[str, Any]], clock: Clock) -> float:
    """Wall time in which no stage's `run` was running; on a cluster stages run beside each other."""
    spans = sorted((f["run_started"], f["run_finished"]) for f in events.values() if "run_finished" in f)
    busy, reached = 0.0, clock.began
    for started, finished in spans:
        busy += max(0.0, finished - max(started, reached))
        reached = max(reached, finished)
    return clock.ended - clock.began - busy


def _model(artifacts: Mapping[str, Path], events: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    gate: dict[str, Any] = {"passed": False, "reasons": ["the run ended before the gate"]}
    registered: dict[str, Any] = {}
    if "register" in artifacts:
        registered = json.loads((artifacts["register"] / "register.json").read_text(encoding="utf-8"))
        gate = {"passed": registered["passed"], "reasons": registered["reasons"]}
    return {
        "path": events.get("export", {}).get("artifact", ""),
        "mlflow_uri": registered.get("mlflow_uri", ""),
        "alias": registered.get("alias"),
        "gate": gate,
    }
