"""The first step of a run: one slice per stage, the artifacts to start from, the run in MLflow.

What Kubeflow's cache cannot know travels in each reference's `cache_key`: the causes of the stage's output, the store
it lies in, how a step's output names its artifact, and whether an artifact of the stage was deleted from the store (a
hit would then hand out nothing). On one machine `qwenops run` has opened the MLflow run and the stages check the store
themselves, so only the slices are put there.
"""

import json
import time
from pathlib import Path
from typing import Any

from qwenops.errors import ContractError, RecipeError
from qwenops.platform.context import OPENED, RunContext
from qwenops.platform.identity.sources import version_of
from qwenops.platform.launch.kfp_artifacts import FORM
from qwenops.platform.stage.events import Events
from qwenops.platform.stage.slices import write_slices
from qwenops.platform.stage.task import sources_of
from qwenops.platform.storage import artifacts
from qwenops.recipe.codec import canonical, fingerprint
from qwenops.recipe.schema import Recipe, read_recipe, resolve
from qwenops_pipelines.dags.nodes import NODES
from qwenops_pipelines.dags.pipelines import find_pipeline
from qwenops_pipelines.steps.failures import recorded
from qwenops_pipelines.steps.import_artifacts import find_artifacts

STEP = "resolve-recipe"
"""Kubeflow's name of the step that calls `begin`."""


@recorded(STEP)
def begin(recipe_text: str, run_name: str, pipeline: str, start_from: str) -> dict[str, str]:
    """Return node name to the reference to its slice, and under "earlier" what `earlier.import_artifacts` needs.

    Args:
        recipe_text: JSON text of the recipe, or the path or `s3://` address of a file that holds it.
        run_name: Name of the run in MLflow.
        pipeline: Name of the pipeline.
        start_from: Where the artifacts of nodes outside the pipeline come from; see `earlier.find_artifacts`.

    Raises:
        RecipeError: the text is no valid recipe.
        ContractError: an artifact to start from is missing or broken.
        PlatformError: MLflow or its registry cannot be used.
    """
    recipe = read_recipe(fetch_text(recipe_text))
    slices = resolve(recipe)
    context = RunContext.from_environment()
    needed = find_pipeline(pipeline).earlier
    found = find_artifacts(needed, slices, context, start_from) if needed else {}
    earlier: dict[str, Any] = {"places": found}
    cache_keys: dict[str, str] = {}
    if context.run_id:
        _open(recipe, run_name, context)
        for name, place in found.items():
            Events(Path(context.events), name).write(status="skipped", finished=time.time(), artifact=place)
        store = f"{artifacts.store_id(context.store)} {FORM}"
        earlier["cache_key"] = store
        sources = sources_of(context)
        for node in NODES:
            # A word that no other run has, where an artifact was published and is no longer there.
            lost = f" again in {context.run_id}" if artifacts.has_lost(f"{context.store}/{node.name}") else ""
            causes = sources.causes(node.stage, slices[node.name].config)
            cache_keys[node.name] = f"{version_of(causes)} {store}{lost}"
    return write_slices(slices, context, cache_keys) | {"earlier": canonical(earlier)}


def fetch_text(given: str) -> str:
    """The recipe's text: `given` itself, or what lies at the path or `s3://` address that it is.

    Raises:
        RecipeError: nothing lies there.
    """
    if given.lstrip().startswith("{"):
        return given
    try:
        return artifacts.read_text(given.strip())
    except (ContractError, OSError) as error:
        raise RecipeError(
            "this is no recipe",
            expected="the JSON text of a recipe, or the path or s3:// address of a file that holds it",
            found=error,
            action="correct recipe_text",
        ) from error


def _open(recipe: Recipe, run_name: str, context: RunContext) -> None:
    """Open the MLflow run and leave its id to the other steps; a retried step finds it open."""
    place = Path(context.events) / OPENED
    if place.is_file():
        return
    parent = ""
    if context.tracking_uri:
        from qwenops.platform.mlflow import tracking

        parent = tracking.open_run(
            tracking_uri=context.tracking_uri,
            artifact_root="",
            run_name=run_name,
            recipe_name=recipe.name,
            fingerprint=fingerprint(recipe),
            params=recipe.model_dump(mode="json"),
            # What the stages run on stands at their own runs; this pod is none of it.
            tags={"kfp.pipeline_run_id": context.run_id, "mlflow.source.type": "JOB"},
        )
        from qwenops.platform.mlflow import registry

        registry.check_registry(context.tracking_uri, parent)
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_suffix(".draft")
    draft.write_text(json.dumps({"parent_run_id": parent, "began": time.time()}), encoding="utf-8")
    draft.replace(place)
