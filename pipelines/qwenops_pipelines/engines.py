"""Whether the generation engines of a recipe can be opened where its stages run, before anything is trained.

What an engine lacks by itself (a model, an address) is said when the recipe is read; here is what depends on the place:
the library and the devices of vLLM, the key of an endpoint, a model's folder.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from qwenops.errors import RecipeError
from qwenops.generation.config import EngineConfig
from qwenops.recipe.addresses import split_hub_id
from qwenops.recipe.placement import Placement
from qwenops.recipe.pods import Pod
from qwenops.recipe.schema import Recipe
from qwenops_pipelines.dags.nodes import NODES
from qwenops_pipelines.extras import missing_modules


def check_engines(recipe: Recipe, placement: Placement) -> None:
    """Check every engine that the stages of `recipe` open at `placement`.

    Raises:
        RecipeError: some cannot be opened there; names every field and what it needs.
    """
    fields: dict[str, list[str]] = {}
    for node in NODES:
        for use in getattr(recipe, node.name).engines():
            for field, need in _lacking(use.engine, placement, node.area):
                fields.setdefault(need, []).append(f"{node.name}.{use.field}.{field}")
    if fields:
        raise RecipeError(
            f"{recipe.name} names engines that cannot be opened at {placement.name}",
            expected="; ".join(f"{need} for {', '.join(names)}" for need, names in fields.items()),
            found="none of it",
            action="supply these, choose another placement, or change the fields (kind in_process runs everywhere)",
        )


def _lacking(engine: EngineConfig, placement: Placement, area: str) -> Iterator[tuple[str, str]]:
    """Fields of `engine` that ask for what `placement` does not have, and what that is."""
    on_cluster = bool(placement.artifact_root)
    if engine.kind == "vllm":
        if on_cluster and "vllm" not in placement.image_engines:
            yield "kind", "an image with vLLM, said by the placement's image_engines,"
        elif not on_cluster and missing_modules(["vllm"]):
            yield "kind", "vLLM in this environment (pip install 'qwenops[vllm]', Linux with a GPU)"
        cluster = placement.cluster(area)
        resources = placement.resources.get(area)
        if on_cluster and not (cluster.has_accelerators if cluster else resources and resources.num_accelerators):
            yield "kind", f"an accelerator in the pods of {area}"
    if engine.api_key_variable and engine.api_key_variable not in _variables(placement, area):
        place = "the secret_env of the placement's pods" if on_cluster else "the environment"
        yield "api_key_variable", f"{engine.api_key_variable} in {place}"
    if engine.kind != "endpoint" and engine.model and not _is_model(engine.model, on_cluster):
        yield "model", f"a folder with config.json or a hub id owner/name, which {engine.model} is not,"


def _variables(placement: Placement, area: str) -> set[str]:
    if not placement.artifact_root:
        return set(os.environ)
    cluster = placement.cluster(area)
    pod: Pod = cluster.head if cluster else placement
    return {*pod.env, *pod.secret_env}


def _is_model(name: str, on_cluster: bool) -> bool:
    """Whether `name` can be a model: a folder, which only a run on this machine can look into, or a hub id."""
    folder = Path(name).expanduser()
    if on_cluster:
        return folder.is_absolute() or split_hub_id(name) is not None
    return (folder / "config.json").is_file() if folder.exists() else split_hub_id(name) is not None
