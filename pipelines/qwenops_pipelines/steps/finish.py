"""The last step of a run on a cluster, whatever its end: free the cluster, publish the run record and the report.

A step that Kubeflow skipped because it had it in its cache leaves no event; it is recognised by its artifact, which the
stages after it read. The cluster is freed first, so that nothing that goes wrong with a report can hold a GPU. Whether
the run failed, and by what, the run's Workflow says.
"""

import json
import time
from html import escape
from pathlib import Path
from typing import Any

from qwenops.contracts.manifest import read_manifest
from qwenops.errors import RecipeError
from qwenops.platform.context import OPENED, RunContext
from qwenops.platform.pictures.charts import duration, number
from qwenops.platform.stage.events import Events
from qwenops.platform.stage.task import sources_of, stage_fingerprint
from qwenops.platform.storage import addresses, artifacts
from qwenops.recipe.config import Config
from qwenops.recipe.schema import read_recipe, resolve
from qwenops.recipe.slice import Slice
from qwenops_pipelines.dags.pipelines import Pipeline, find_pipeline
from qwenops_pipelines.record import (
    Clock,
    artifact_folders,
    build_record,
    close_tracking,
    empty_record,
    publish_record,
    read_events,
    write_record,
)
from qwenops_pipelines.steps import failures
from qwenops_pipelines.steps.begin import STEP, fetch_text

# ML Metadata's names: Kubeflow's driver hands on the state that it has of everything before. Only a launcher moves it,
# so where the last steps were taken from the cache it says RUNNING, or still FAILED of a step that a retry mended: it
# is asked only where the Workflow may not be read.
_FAILED = ("FAILED", "CANCELED")


def finish(
    recipe_text: str, run_name: str, pipeline: str, status: Any, *, metrics: Any, summary: Any, page: Any
) -> dict[str, Any]:
    """Free what the run holds, write `runs/<run id>/`, close the MLflow run, fill the step's artifacts.

    Args:
        recipe_text: JSON text of the recipe, or where it lies, as `begin` takes it.
        run_name: Name of the run.
        pipeline: Name of the pipeline.
        status: KFP's `PipelineTaskFinalStatus` of everything before.
        metrics: `dsl.Metrics`.
        summary: `dsl.Markdown`.
        page: `dsl.HTML`.

    Returns:
        The run record; without stages when the recipe's text was no recipe, so that nothing ran.
    """
    context = RunContext.from_environment()
    if context.pod_namespace:
        from qwenops.platform.launch import launchers

        launchers.delete_jobs(context)
    folder = addresses.runs_folder(context) / (context.run_id or run_name)
    try:
        recipe, chosen = read_recipe(fetch_text(recipe_text)), find_pipeline(pipeline)
    except RecipeError as error:
        record = empty_record(run_name, _clock(context), {"task": STEP, "message": str(error)})
        write_record(record, folder)
        Path(summary.path).write_text(f"# {run_name}: failed\n\n{error}\n", encoding="utf-8")
        Path(page.path).write_text(f"<pre>{escape(str(error))}</pre>", encoding="utf-8")
        return record
    outcome = failures.ask_kubeflow(chosen.nodes, context)
    failures.note_killed(chosen.nodes, outcome, context)
    artifacts = _note_cached(chosen, resolve(recipe), context)
    record = build_record(recipe, run_name, chosen.nodes, context, _clock(context), artifacts)
    if outcome.failed or (not outcome.steps and str(status.state) in _FAILED):
        record |= {"status": "failed"}
    if record["status"] == "failed":
        events = read_events(Path(context.events))
        record |= {"error": failures.find_error(events, outcome, str(status.error_message or ""))}
    report = publish_record(record, recipe, artifacts, folder)
    close_tracking(record, context, artifacts, folder)
    _show(record, folder, metrics, summary)
    Path(page.path).write_text(report, encoding="utf-8")
    return record


def _clock(context: RunContext) -> Clock:
    opened = Path(context.events) / OPENED
    now = time.time()
    return Clock(json.loads(opened.read_text(encoding="utf-8"))["began"] if opened.is_file() else now, now)


def _note_cached(pipeline: Pipeline, slices: dict[str, Slice[Config]], context: RunContext) -> dict[str, Path]:
    """Write an event for each node that ran in an earlier run and not in this one; returns all artifacts' folders."""
    seen = read_events(Path(context.events))
    folders, sources = artifact_folders(seen, context), sources_of(context)
    for node in pipeline.nodes:
        known = {name: folders[source] for name, source in node.inputs.items() if source in folders}
        if node.name in seen or len(known) < len(node.inputs):
            continue
        parents = {name: read_manifest(path).artifact_id for name, path in known.items()}
        envelope = slices[node.name]
        key = stage_fingerprint(sources.causes(node.stage, envelope.config), envelope, parents)
        place = f"{context.store}/{node.name}/{key[:16]}"
        if artifacts.manifest(place):
            Events(Path(context.events), node.name).write(status="skipped", finished=time.time(), artifact=place)
            folders[node.name] = artifacts.local_copy(place, context)
    return folders


def _show(record: dict[str, Any], folder: Path, metrics: Any, summary: Any) -> None:
    stages, error = record["stages"], record["error"]
    states = [stage["status"] for stage in stages.values()]
    for state in ("succeeded", "skipped", "failed"):
        metrics.log_metric(f"stages.{state}", states.count(state))
    metrics.log_metric("seconds", round(record["seconds"], 1))
    lines = [f"# {record['run_name']}: {record['status']}", "", f"{duration(record['seconds'])}; record in `{folder}`."]
    lines += [f"\n**{error['task'] or 'run'} failed:** {error['message']}"] if error else []
    gate = record["model"]["gate"]
    lines += ["", f"Gate {'passed' if gate['passed'] else 'not passed'}: {'; '.join(gate['reasons'])}."]
    lines += ["", "| stage | status | seconds | records |", "|---|---|---|---|"]
    for name, stage in stages.items():
        records = stage["outputs"]["output"]["records"] if stage["outputs"] else None
        lines.append(f"| {name} | {stage['status']} | {number(stage['seconds'])} | {number(records)} |")
    Path(summary.path).write_text("\n".join(lines) + "\n", encoding="utf-8")
