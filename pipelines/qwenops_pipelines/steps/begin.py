"""The first step of a run: one slice per stage, the artifacts to start from, the run in MLflow.

What Kubeflow's cache cannot know travels in each slice's `cache_key`: the stage's code, the store the artifacts lie
in, and whether an artifact of the stage was deleted from it (a hit would then hand out nothing). On one machine
`qwenops run` has opened the MLflow run and the stages check the store themselves, so only the slices are made.
"""

import importlib
import json
import time
import uuid
from pathlib import Path

from qwenops.contracts.manifest import MANIFEST
from qwenops.platform.context import OPENED, RunContext
from qwenops.platform.stage import MADE, Events, code_version
from qwenops.recipe.codec import canonical, decode, fingerprint
from qwenops.recipe.schema import Recipe, resolve
from qwenops_pipelines.dags.edges import NODES
from qwenops_pipelines.dags.pipelines import find_pipeline
from qwenops_pipelines.steps.earlier import find_earlier

_STORE_ID = ".store-id"


def begin(recipe_text: str, run_name: str, pipeline: str, start_from: str) -> dict[str, str]:
    """Return node name to the text of its slice, and under "earlier" what `earlier.take_up` needs.

    Args:
        recipe_text: JSON text of the recipe.
        run_name: Name of the run in MLflow.
        pipeline: Name of the pipeline.
        start_from: Where the artifacts of nodes outside the pipeline come from; see `earlier.find_earlier`.

    Raises:
        RecipeError: the text is no valid recipe.
        ContractError: an artifact to start from is missing or broken.
        PlatformError: MLflow cannot be used.
    """
    slices = resolve(recipe_text)
    context = RunContext.from_environment()
    needed = find_pipeline(pipeline).earlier
    found = find_earlier(needed, slices, Path(context.store), start_from) if needed else {}
    if context.run_id:
        _open(decode(Recipe, recipe_text), run_name, context)
        for name, path in found.items():
            Events(Path(context.events), name).write(status="skipped", finished=time.time(), artifact=str(path))
        store = store_id(Path(context.store))
        for node in NODES:
            key = f"{code_version(node.stage)} {store}{_lost(Path(context.store) / node.name, context.run_id)}"
            slices[node.name] = canonical(json.loads(slices[node.name]) | {"cache_key": key})
    return slices | {"earlier": canonical({name: str(path) for name, path in found.items()})}


def store_id(store: Path) -> str:
    """The name a store was given when it was first used; a new store has another, so nothing cached stands for it."""
    place = store / _STORE_ID
    store.mkdir(parents=True, exist_ok=True)
    try:
        with place.open("x", encoding="utf-8") as stream:
            stream.write(uuid.uuid4().hex[:12])
    except FileExistsError:
        pass
    return place.read_text(encoding="utf-8")


def _lost(folder: Path, run_id: str) -> str:
    """A word that no other run has, where an artifact was published below `folder` and is no longer there."""
    made = [path.name.removeprefix(".").removesuffix(MADE) for path in folder.glob(f".*{MADE}")]
    return "" if all((folder / key / MANIFEST).is_file() for key in made) else f" again in {run_id}"


def _open(recipe: Recipe, run_name: str, context: RunContext) -> None:
    """Open the MLflow run and leave its id to the other steps; a retried step finds it open."""
    place = Path(context.events) / OPENED
    if place.is_file():
        return
    parent = ""
    if context.tracking_uri:
        parent = importlib.import_module("qwenops.platform.tracking").open_run(
            tracking_uri=context.tracking_uri,
            artifact_root="",
            run_name=run_name,
            recipe_name=recipe.name,
            fingerprint=fingerprint(recipe),
            params=recipe.model_dump(mode="json"),
            tags={"kfp.pipeline_run_id": context.run_id},
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_suffix(".draft")
    draft.write_text(json.dumps({"parent_run_id": parent, "began": time.time()}), encoding="utf-8")
    draft.replace(place)
