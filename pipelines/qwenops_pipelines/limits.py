"""What a recipe may weigh where Kubeflow carries its text: asked when a pipeline is planned, compiled or submitted."""

import json

from qwenops.errors import RecipeError
from qwenops.recipe.codec import canonical
from qwenops.recipe.schema import Recipe

ARGUMENT_BYTES = 131_072
"""Longest argument of a Linux process, its end included: MAX_ARG_STRLEN, 32 pages of 4 KiB (execve(2))."""
FORM_BYTES = 90_000
"""Longest recipe as JSON holds it in a string; the rest of the argument it stands in is the pipeline around it."""


def check_form(recipe: Recipe) -> None:
    """Check that the text of `recipe` can be the value of a field in Kubeflow's form.

    Kubeflow's driver gets the pipeline, with the form's defaults in it, as one argument of its process, and a step its
    parameters as another (`--component` and `--executor_input` of its back end).

    Raises:
        RecipeError: it is too long.
    """
    size = len(json.dumps(canonical(recipe), ensure_ascii=False).encode())
    if size > FORM_BYTES:
        raise RecipeError(
            f"the recipe {recipe.name} is too long for Kubeflow's form",
            expected=f"at most {FORM_BYTES:,} bytes as a JSON string: Kubeflow hands it on in one argument, "
            f"and Linux ends an argument at {ARGUMENT_BYTES:,} bytes (MAX_ARG_STRLEN)",
            found=f"{size:,} bytes",
            action="compile a shorter recipe and give the form's recipe_text the s3:// address, or the path on the "
            "placement's volume, of a file with this one; or let one folder source stand for many",
        )
