"""Whether the models that a recipe starts from can be had, asked before anything is computed."""

from collections.abc import Iterable
from pathlib import Path

from qwenops.errors import PlatformError, RecipeError
from qwenops.platform.identity.outside import ABSENT, commit_at_hub, digest_outside
from qwenops.recipe.addresses import split_hub_id
from qwenops.recipe.outside import Outside
from qwenops.recipe.schema import Recipe


def check_models(recipe: Recipe, nodes: Iterable[str], cache: Path) -> None:
    """Check every model that `nodes` of `recipe` load: a folder or file of this machine, or an id that the Hub gives.

    Args:
        recipe: The recipe.
        nodes: Nodes that will run.
        cache: Folder that remembers what ids stood for.

    Raises:
        RecipeError: there is no such folder or file.
        PlatformError: the Hub does not give the model, nor does its cache hold it.
    """
    named: dict[Outside, list[str]] = {}
    for node in nodes:
        for thing in getattr(recipe, node).outside():
            if thing.kind == "model":
                named.setdefault(thing, []).append(node)
    for thing, readers in named.items():
        if digest_outside(thing, cache) == ABSENT:
            raise _missing(thing, ", ".join(readers))


def _missing(thing: Outside, readers: str) -> RecipeError | PlatformError:
    hub = split_hub_id(thing.name)
    if hub is None:
        return RecipeError(
            f"no model at {thing.name}, which {readers} would load",
            expected="a transformers folder, a .gguf file or a hub id (owner/name or owner/name@revision)",
            found="no such file or folder",
            action="check init_from and engine.model",
        )
    name, revision = hub
    try:
        found = commit_at_hub("model", name, revision or thing.revision)
    except (OSError, ValueError) as error:
        found = str(error)
    return PlatformError(
        f"cannot fetch {thing.name}, which {readers} would load",
        expected="a model and revision that the Hub gives to anybody, or to the holder of HF_TOKEN",
        found=found,
        action="check the id, its revision and HF_TOKEN, or download the model elsewhere and give its folder",
    )
