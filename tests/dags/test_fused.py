"""Steps of several nodes: which may stand together, and what the step reads and writes."""

import pytest

from qwenops.errors import RecipeError
from qwenops.recipe.placement import Placement
from qwenops_pipelines.dags.build import build
from qwenops_pipelines.dags.fused import in_steps
from qwenops_pipelines.dags.nodes import NODES
from qwenops_pipelines.dags.pipelines import PIPELINES
from qwenops_pipelines.placements.kind import kind
from qwenops_pipelines.recipes import load_recipe


def fused(*groups, **settings):
    return Placement(name="here", image="python", artifact_root="/mnt/store", fuse=groups, **settings)


def names(steps):
    return [[node.name for node in step] for step in steps]


def test_a_step_stands_behind_all_that_its_nodes_read():
    steps = names(in_steps(NODES, fused(("export", "register"), ("collect", "ingest"))))
    assert steps[0] == ["collect", "ingest"]
    assert steps[-2:] == [["export", "register"], ["report"]]
    assert sorted(name for step in steps for name in step) == sorted(node.name for node in NODES)


def test_a_group_is_cut_to_the_nodes_of_the_pipeline():
    steps = names(in_steps(PIPELINES["evaluation"].nodes, fused(("online", "benchmarks"))))
    assert ["benchmarks"] in steps and not any("online" in step for step in steps)


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (("collect", "colect"), "colect"),
        (("ingest", "dedup"), "wait for each other"),
        (("evolve", "rank"), "wait for each other"),
    ],
)
def test_group_that_cannot_be_a_step_is_refused(group, words):
    with pytest.raises(RecipeError, match=words) as caught:
        in_steps(NODES, fused(group))
    assert caught.value.action


def test_nodes_of_two_places_are_no_step():
    with pytest.raises(RecipeError, match="two places"):
        in_steps(NODES, kind().model_copy(update={"fuse": (("contamination", "export"),)}))


def test_a_node_stands_in_one_group():
    with pytest.raises(ValueError, match="more than once"):
        fused(("collect", "ingest"), ("ingest", "quality"))


def test_step_of_several_reads_what_is_outside_and_writes_what_each_node_writes():
    spec = build(load_recipe("smoke", []), kind()).pipeline_spec
    step = spec.components["comp-export-to-report"]
    assert {"config_export", "config_register", "config_report"} == set(step.input_definitions.parameters)
    read = {
        source for node in NODES if node.name in ("export", "register", "report") for source in node.inputs.values()
    }
    assert set(step.input_definitions.artifacts) == read - {"export", "register", "report"}
    assert {"export", "register", "report", "report_page", "register_metrics"} <= set(step.output_definitions.artifacts)
    tasks = spec.components["comp-exit-handler-1"].dag.tasks
    gate = tasks["enforce-gate"].inputs.artifacts["verdict"].task_output_artifact
    assert (gate.producer_task, gate.output_artifact_key) == ("export-to-report", "register")
    assert len(tasks) == 8
