"""One of the five pipelines as a KFP pipeline: the table of `nodes.py`, one task per node.

On a cluster everything stands inside an exit handler, which publishes what the run did and frees the cluster whatever
the end is; on one machine `qwenops run` does both itself, and a step more would cost seconds.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kfp import dsl

from qwenops.recipe.codec import canonical
from qwenops.recipe.placement import Placement
from qwenops.recipe.schema import Recipe
from qwenops_pipelines.dags.fused import fused_component, in_steps, parameters_of
from qwenops_pipelines.dags.kubernetes_options import set_kubernetes_options
from qwenops_pipelines.dags.nodes import NODES, Node, ancestors
from qwenops_pipelines.dags.pipelines import PIPELINES, Pipeline
from qwenops_pipelines.steps import component as steps

# A component is called with channels and without its outputs, where its function has paths and values.
_finish_run: Any = steps.finish_run
_enforce_gate: Any = steps.enforce_gate
_FORM = {
    "recipe_text": (
        "The recipe as JSON text, every number of the run; or the path or s3:// address of a file that holds it, for "
        "one of more than 100 kB. Unknown fields are refused."
    ),
    "run_name": "Name of this run in MLflow and in the report.",
    "start_from": (
        "Where the artifacts this pipeline starts from come from: the name or id of a finished run on this cluster, or "
        "a folder that `qwenops run` wrote; empty takes the newest intact ones that this recipe's own numbers made."
    ),
    "failed_gate": 'What a failed evaluation gate does: "report" says so, "fail" also ends the run as failed.',
}


def build(
    recipe: Recipe,
    placement: Placement,
    pipeline: Pipeline = PIPELINES["full"],
    until: str = "",
    reused: Mapping[str, Path] = MappingProxyType({}),
) -> Any:
    """Return the KFP pipeline of `recipe` at `placement`.

    The recipe becomes the default of a text parameter, so a person can change it in the Kubeflow form.

    Args:
        recipe: What to train.
        placement: Where; one without an artifact root is this machine.
        pipeline: Which part of the DAG.
        until: Last node to run; empty for all of the pipeline.
        reused: Nodes whose artifacts are known to be intact, to their folders: imported where another reads them, so
            that no step starts a process to find what was found. None on a cluster, whose first step looks.
    """
    on_cluster = bool(placement.artifact_root)
    wanted = ancestors(until) if until else pipeline.nodes
    nodes = [node for node in pipeline.nodes if node in wanted and node.name not in reused]
    judged = on_cluster and any(node.name == "register" for node in nodes)
    form = {"recipe_text": canonical(recipe), "run_name": recipe.name}
    form |= {"start_from": ""} if pipeline.earlier else {}
    form |= {"failed_gate": "report"} if judged else {}

    def body(*values: Any) -> None:
        given = dict(zip(form, values, strict=True))
        if not on_cluster:
            _tasks(given, nodes, placement, pipeline, reused)
            return
        finish: Any = _finish_run(recipe=given["recipe_text"], run_name=given["run_name"], pipeline=pipeline.name)
        finish.set_caching_options(False)
        set_kubernetes_options(finish, placement, "delivery")
        with dsl.ExitHandler(finish, name="run"):
            artifacts, last = _tasks(given, nodes, placement, pipeline, reused)
            if judged:
                gate: Any = _enforce_gate(verdict=artifacts["register"], failed_gate=given["failed_gate"])
                gate.after(last)
                gate.set_caching_options(False)
                set_kubernetes_options(gate, placement, "delivery")

    made = dsl.pipeline(name=_name(recipe, pipeline), description=pipeline.description)
    # KFP reads the whole stack of calls for each field of a task: on a thread's own stack that costs next to nothing.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(made, _with_form(body, form)).result()


def _tasks(
    given: Mapping[str, Any],
    nodes: list[Node],
    placement: Placement,
    pipeline: Pipeline,
    reused: Mapping[str, Path],
) -> tuple[dict[str, Any], dsl.PipelineTask]:
    """Make the tasks; returns node name to its artifact, and the last task."""
    slices = steps.resolve_recipe(
        recipe=given["recipe_text"],
        run_name=given["run_name"],
        pipeline=pipeline.name,
        start_from=given.get("start_from", ""),
    )
    slices.set_caching_options(False)
    set_kubernetes_options(slices, placement, "recipe")
    artifacts: dict[str, Any] = {}
    last = slices
    if pipeline.earlier:
        earlier = getattr(steps, f"earlier_for_{pipeline.name}")(earlier=slices.outputs["earlier"])
        set_kubernetes_options(earlier, placement, "recipe")
        artifacts |= {name: earlier.outputs[name] for name in pipeline.earlier}
    read = {source for node in nodes for source in node.inputs.values()}
    artifacts |= {node.name: _imported(node, reused[node.name]) for node in NODES if node.name in read & reused.keys()}
    for step in in_steps(nodes, placement):
        last = _task(step, slices.outputs, artifacts)
        set_kubernetes_options(last, placement, step[0].area)
        artifacts |= {node.name: last.outputs["output" if len(step) == 1 else node.name] for node in step}
    return artifacts, last


def _task(step: Sequence[Node], slices: Mapping[str, Any], artifacts: Mapping[str, Any]) -> dsl.PipelineTask:
    """The task of one node, or of several in turn."""
    first, name = step[0], step[0].name
    if len(step) == 1:
        inputs = {given: artifacts[source] for given, source in first.inputs.items()}
        task = _component(first)(config=slices[name], **inputs)
    else:
        name = f"{name} to {step[-1].name}"
        parameters = {node.name: parameters_of(_component(node).python_func) for node in step}
        configs = {f"config_{node.name}": slices[node.name] for node in step}
        own = {node.name for node in step}
        read = {source for node in step for source in node.inputs.values()} - own
        task = fused_component(step, parameters)(**configs, **{source: artifacts[source] for source in read})
    task.set_display_name(name)
    return task


def _imported(node: Node, folder: Path) -> Any:
    """The artifact of a node that was made before, typed as the node's own component types it."""
    outputs = (it for it in parameters_of(_component(node).python_func) if it.name == "output")
    kind = getattr(dsl, next(outputs).kind)
    importer: Any = dsl.importer(artifact_uri=str(folder), artifact_class=kind, reimport=False)
    return importer.set_display_name(f"{node.name} (reused)").output


def _with_form(body: Callable[..., None], form: Mapping[str, str]) -> Callable[..., None]:
    """Give `body` the parameters of `form` under their names: KFP reads a pipeline's form from its signature."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind, default=text, annotation=str) for name, text in form.items()]
    lines = "\n".join(f"    {name}: {_FORM[name]}" for name in form)
    body.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    body.__doc__ = f"The form.\n\nArgs:\n{lines}\n"
    return body


def _name(recipe: Recipe, pipeline: Pipeline) -> str:
    part = "" if pipeline.name == "full" else f"-{pipeline.name}"
    return f"qwenops-{recipe.name}{part}".replace("_", "-")


def _component(node: Node) -> Callable[..., dsl.PipelineTask]:
    """The node's KFP component: the function of its name in its stage's `component.py`."""
    return getattr(importlib.import_module(f"qwenops.{node.stage}.component"), node.name)
