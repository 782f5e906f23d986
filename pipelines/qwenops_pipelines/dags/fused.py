"""Several nodes as one KFP component: a step that runs them in turn, each with the outputs of its own component."""

import inspect
import linecache
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from kfp import dsl
from kfp.dsl.types.type_annotations import OutputAnnotation

from qwenops.errors import RecipeError
from qwenops.recipe.image import IMAGE
from qwenops.recipe.placement import Placement
from qwenops_pipelines.dags.nodes import NODES, Node


@dataclass(frozen=True)
class Parameter:
    """A parameter of a node's component: its name, its artifact's class, and whether the node writes it."""

    name: str
    kind: str
    is_output: bool


def in_steps(nodes: Sequence[Node], placement: Placement) -> list[list[Node]]:
    """The nodes of each step, in an order in which every step finds what it reads.

    Raises:
        RecipeError: a group of `placement.fuse` names no node, has two places to run, or waits for itself.
    """
    for group in placement.fuse:
        _check(group, placement)
    group_of = {name: place for place, group in enumerate(placement.fuse) for name in group}
    steps: dict[int | str, list[Node]] = {}
    for node in nodes:
        steps.setdefault(group_of.get(node.name, node.name), []).append(node)
    own = {node.name for node in nodes}
    waiting, ordered, made = list(steps.values()), list[list[Node]](), set[str]()
    while waiting:
        ready = next((step for step in waiting if _read_from_outside(step) & own <= made), None)
        if ready is None:
            raise RecipeError(
                f"the steps of placement {placement.name} wait for each other",
                expected="groups in `fuse` that read nothing which needs one of their own nodes",
                found="; ".join(", ".join(node.name for node in step) for step in waiting if len(step) > 1),
                action="split the group, or add the nodes between its own",
            )
        waiting.remove(ready)
        ordered.append(ready)
        made |= {node.name for node in ready}
    return ordered


def fused_component(nodes: Sequence[Node], parameters: Mapping[str, Sequence[Parameter]]) -> Callable[..., Any]:
    """A component that runs `nodes` in turn.

    Its inputs are `config_NODE` for each, and for each node outside that they read one of its name; its outputs are
    NODE, `NODE_metrics`, `NODE_summary` and what else the node's own component writes.

    Args:
        nodes: In running order.
        parameters: Node name to what its own component reads and writes.
    """
    name = f"{nodes[0].name}_to_{nodes[-1].name}"
    text = "\n".join(_source(name, nodes, parameters))
    # KFP puts the text of a function into its step, and reads it where Python looks for lines.
    file = f"<fused {name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    scope: dict[str, Any] = {"dsl": dsl}
    exec(compile(text, file, "exec"), scope)
    return dsl.component(scope[name], base_image=IMAGE, install_kfp_package=False)


def parameters_of(function: Callable[..., Any]) -> list[Parameter]:
    """What a component's function reads and writes, its config left out."""
    found: list[Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name != "config":
            kind, mark = get_args(parameter.annotation)
            found.append(Parameter(name, kind.__name__, mark is OutputAnnotation))
    return found


def output_name(node: Node, parameter: str) -> str:
    """What an output of a node is called in a step of several: the artifact itself by the node's name."""
    return node.name if parameter == "output" else f"{node.name}_{parameter}"


def _source(name: str, nodes: Sequence[Node], parameters: Mapping[str, Sequence[Parameter]]) -> Iterator[str]:
    own = {node.name for node in nodes}
    yield f"def {name}("
    yield from (f"    config_{node.name}: str," for node in nodes)
    read: dict[str, str] = {}
    for node in nodes:
        for parameter in parameters[node.name]:
            if not parameter.is_output and node.inputs[parameter.name] not in own:
                read.setdefault(node.inputs[parameter.name], parameter.kind)
    yield from (f"    {source}: dsl.Input[dsl.{kind}]," for source, kind in read.items())
    for node in nodes:
        for parameter in parameters[node.name]:
            if parameter.is_output:
                yield f"    {output_name(node, parameter.name)}: dsl.Output[dsl.{parameter.kind}],"
    yield "):"
    yield f'    """Run {", ".join(node.name for node in nodes)} in turn, as steps of their own would."""'
    yield "    from qwenops.platform.launch.execute import Part, execute_in_turn"
    yield ""
    yield "    execute_in_turn("
    for node in nodes:
        inputs = ", ".join(f'"{given}": {source}.path' for given, source in node.inputs.items())
        outputs = [item.name for item in parameters[node.name] if item.is_output]
        shown = ", ".join(f'"{output}": {output_name(node, output)}' for output in outputs)
        yield f'        Part("{node.stage}", config_{node.name}, {{{inputs}}}, {{{shown}}}),'
    yield "    )"


def _read_from_outside(step: Sequence[Node]) -> set[str]:
    return {source for node in step for source in node.inputs.values()} - {node.name for node in step}


def _check(group: Sequence[str], placement: Placement) -> None:
    by_name = {node.name: node for node in NODES}
    unknown = [name for name in group if name not in by_name]
    if unknown:
        raise RecipeError(
            f"`fuse` of placement {placement.name} names nodes that do not exist",
            expected=f"some of {', '.join(by_name)}",
            found=", ".join(unknown),
            action="correct the names",
        )
    areas = dict.fromkeys(by_name[name].area for name in group)
    places = {(placement.launchers.get(area), placement.resources.get(area)) for area in areas}
    if len(places) > 1:
        raise RecipeError(
            f"a group in `fuse` of placement {placement.name} has two places to run",
            expected="nodes of areas with the same cluster in `launchers` and the same `resources`",
            found=f"{', '.join(group)} of the areas {', '.join(areas)}",
            action="split the group by areas",
        )
