"""The whole recipe as one Kubeflow pipeline: the table of `edges.py`, one task per row."""

import importlib
from collections.abc import Callable
from typing import Any

from kfp import dsl

from qwenops.recipe.codec import canonical
from qwenops.recipe.component import resolve_recipe
from qwenops.recipe.placement import Placement
from qwenops.recipe.schema import Recipe
from qwenops_pipelines.dags.dress import dress
from qwenops_pipelines.dags.edges import Node, ancestors


def build(recipe: Recipe, placement: Placement, until: str = "report") -> Any:
    """Return the KFP pipeline of `recipe` at `placement`, up to and including the node `until`.

    The recipe becomes the default of a text parameter, so a person can change it in the Kubeflow form.
    """

    @dsl.pipeline(name=f"qwenops-{recipe.name}".replace("_", "-"), description=_DESCRIPTION)
    def pipeline(recipe_text: str = canonical(recipe), run_name: str = recipe.name) -> None:
        """Qwen2, from raw pages to a registered, evaluated chat model.

        Args:
            recipe_text: The recipe as JSON text; every number of the run. Unknown fields are refused.
            run_name: Name of this run in MLflow.
        """
        slices = resolve_recipe(recipe=recipe_text)
        slices.set_caching_options(True)
        dress(slices, placement, "recipe")
        tasks: dict[str, dsl.PipelineTask] = {}
        for node in ancestors(until):
            inputs = {name: tasks[source].outputs["output"] for name, source in node.inputs.items()}
            task = _component(node)(config=slices.outputs[node.name], run_name=run_name, **inputs)
            task.set_display_name(node.name)
            dress(task, placement, node.area)
            tasks[node.name] = task

    return pipeline


_DESCRIPTION = "Raw pages to a registered, evaluated chat model, following the Qwen2 report"


def _component(node: Node) -> Callable[..., dsl.PipelineTask]:
    """The node's KFP component: the function of its name in its stage's `component.py`."""
    return getattr(importlib.import_module(f"qwenops.{node.stage}.component"), node.name)
