"""Where a pipeline runs; `by_name` finds a placement for the command line, by name or as a JSON file."""

from pathlib import Path

from qwenops.errors import RecipeError
from qwenops.recipe.codec import canonical, decode, read_json
from qwenops.recipe.placement import Placement
from qwenops_pipelines.placements.h200_node import h200_node
from qwenops_pipelines.placements.kind import kind
from qwenops_pipelines.placements.laptop import laptop

PLACEMENTS = {"laptop": laptop, "h200_node": h200_node, "kind": kind}


def by_name(name: str) -> Placement:
    """Return the placement called `name`, or the one described in the JSON file `name`.

    Raises:
        RecipeError: there is none of that name, or the file does not describe one; names the field.
    """
    if name.endswith(".json"):
        return _read(Path(name))
    if name not in PLACEMENTS:
        raise RecipeError(
            "unknown placement",
            expected=f"one of {', '.join(PLACEMENTS)}, or a .json file",
            found=name,
            action="check --placement",
        )
    return PLACEMENTS[name]()


def _read(path: Path) -> Placement:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"cannot read the placement {path}",
            expected="a readable JSON file in UTF-8",
            found=error,
            action="check --placement",
        ) from None
    return decode(Placement, canonical(read_json(text, f"the placement {path}")), where="placement")
