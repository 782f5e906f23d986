"""Where a pipeline runs; `by_name` finds a placement for the command line."""

from qwenops.errors import RecipeError
from qwenops.recipe.placement import Placement
from qwenops_pipelines.placements.h200_node import h200_node
from qwenops_pipelines.placements.laptop import laptop

PLACEMENTS = {"laptop": laptop, "h200_node": h200_node}


def by_name(name: str) -> Placement:
    """Return the placement called `name`.

    Raises:
        RecipeError: there is none.
    """
    if name not in PLACEMENTS:
        raise RecipeError(
            "unknown placement", expected=f"one of {', '.join(PLACEMENTS)}", found=name, action="check --placement"
        )
    return PLACEMENTS[name]()
