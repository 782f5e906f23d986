"""The compiled pipeline is repeatable, has the edges of the table, and shows a short form."""

import json

import pytest
from kfp import components
from tests.dags.golden import GOLDEN, all_tasks, describe_all, read_spec

from qwenops.recipe.codec import canonical, fingerprint
from qwenops.recipe.image import IMAGE
from qwenops_pipelines.compile import COMPILED, compile_pipeline, shipped_pipelines
from qwenops_pipelines.dags.nodes import NODES, ancestors
from qwenops_pipelines.dags.pipelines import PIPELINES
from qwenops_pipelines.placements import by_name
from qwenops_pipelines.recipes import RECIPES, load_recipe
from qwenops_pipelines.steps import component as steps


@pytest.mark.parametrize("placement", ["laptop", "h200_node", "kind"])
@pytest.mark.parametrize("name", ["smoke", "tiny"])
def test_compiling_twice_gives_equal_bytes(tmp_path, name, placement):
    recipe = load_recipe(name, [])
    before = fingerprint(recipe)
    files = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    for path in files:
        compile_pipeline(recipe, by_name(placement), path)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert fingerprint(recipe) == before


def test_compiled_pipeline_has_every_edge_and_a_short_form(tmp_path):
    compile_pipeline(load_recipe("smoke", []), by_name("laptop"), tmp_path / "p.yaml")
    spec = read_spec(tmp_path / "p.yaml")
    tasks = spec["root"]["dag"]["tasks"]
    for node in NODES:
        depends = set(tasks[node.name.replace("_", "-")]["dependentTasks"])
        assert depends == {name.replace("_", "-") for name in node.inputs.values()} | {"resolve-recipe"}
    form = spec["root"]["inputDefinitions"]["parameters"]
    assert len(form) <= 8
    assert all(field.get("description") for field in form.values())
    assert "pip install" not in (tmp_path / "p.yaml").read_text()


def test_gpu_placement_gives_gpus_to_rayjobs_where_models_are_and_none_to_steps(tmp_path):
    compile_pipeline(load_recipe("smoke", []), by_name("h200_node"), tmp_path / "p.yaml")
    executors = read_spec(tmp_path / "p.yaml")["deploymentSpec"]["executors"]
    assert not [name for name, spec in executors.items() if "accelerator" in spec["container"].get("resources", {})]
    environments = {name: {e["name"]: e["value"] for e in s["container"]["env"]} for name, s in executors.items()}
    with_gpu = {name for name, env in environments.items() if "nvidia.com/gpu" in env.get("QWENOPS_CLUSTER", "")}
    assert with_gpu == {
        f"exec-{node.name.replace('_', '-')}" for node in NODES if node.area not in ("data", "delivery")
    }


def test_until_keeps_the_ancestors_and_nothing_else():
    names = [node.name for node in ancestors("tokens")]
    assert names == ["collect", "ingest", "quality", "dedup", "decontaminate", "tokenizer", "mixture", "tokens"]


def test_edges_of_every_pipeline_are_the_reviewed_ones():
    # After a change that is meant: `python -m tests.dags.golden` rewrites the file and prints the difference.
    assert describe_all() == GOLDEN.read_text(encoding="utf-8")


def test_pipelines_together_are_the_whole_dag_and_each_names_what_it_takes_up():
    parts = [pipeline for name, pipeline in PIPELINES.items() if name != "full"]
    names = [node.name for pipeline in parts for node in pipeline.nodes]
    assert sorted([*names, "report"]) == sorted(node.name for node in NODES)
    for pipeline in parts:
        if pipeline.earlier:
            outputs = getattr(steps, f"earlier_for_{pipeline.name}").component_spec.outputs
            assert tuple(outputs) == pipeline.earlier


@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=lambda pipeline: pipeline.name)
def test_shipped_file_of_tiny_is_current(tmp_path, pipeline):
    # CI compiles all of them (`make compile-check`); the recipes differ by their text alone, see the next test.
    for recipe, placement, shipped_pipeline, path in shipped_pipelines(COMPILED):
        if (recipe, shipped_pipeline) == ("tiny", pipeline):
            compile_pipeline(load_recipe(recipe, []), by_name(placement), tmp_path / path.name, pipeline=pipeline)
            assert (tmp_path / path.name).read_bytes() == path.read_bytes(), "stale: run `make compile`"


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_files_carry_the_recipe_as_it_is_and_nothing_else_is_shipped(name):
    files = {path: recipe for recipe, _, _, path in shipped_pipelines(COMPILED)}
    assert sorted(COMPILED.glob("*/*.yaml")) == sorted(files)
    text = json.dumps(canonical(load_recipe(name, [])))
    for path in (path for path, recipe in files.items() if recipe == name):
        form = read_spec(path)["root"]["inputDefinitions"]["parameters"]
        assert json.dumps(form["recipe_text"]["defaultValue"]) == text, f"{path} is stale: run `make compile`"


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_shipped_file_loads_in_kfp_and_places_every_task(pipeline):
    path = COMPILED / "h200_node" / f"tiny.{pipeline}.yaml"
    loaded = components.load_component_from_file(str(path))
    spec = read_spec(path)
    form = spec["root"]["inputDefinitions"]["parameters"]
    assert set(loaded.component_spec.inputs) == set(form)
    assert 2 <= len(form) <= 8
    assert all(field.get("description") for field in form.values())
    images = {executor["container"]["image"] for executor in spec["deploymentSpec"]["executors"].values()}
    assert images == {by_name("h200_node").image}
    assert IMAGE not in path.read_text()
    for name, task in all_tasks(spec).items():
        alone = name in ("resolve-recipe", "enforce-gate", "finish-run")
        assert task.get("cachingOptions", {}).get("enableCache", False) != alone


def test_stages_are_cached_by_their_slice_and_their_inputs_alone(tmp_path):
    spec = read_spec(COMPILED / "h200_node" / "tiny.full.yaml")
    for node in NODES:
        component = spec["components"][f"comp-{node.name.replace('_', '-')}"]
        assert set(component["inputDefinitions"]["parameters"]) == {"config"}
        assert set(component["inputDefinitions"].get("artifacts", {})) == set(node.inputs)


def test_stages_show_figures_and_a_summary_and_some_a_page(tmp_path):
    spec = read_spec(COMPILED / "h200_node" / "tiny.full.yaml")
    kinds = {}
    for node in NODES:
        outputs = spec["components"][f"comp-{node.name.replace('_', '-')}"]["outputDefinitions"]["artifacts"]
        kinds[node.name] = {facts["artifactType"]["schemaTitle"] for facts in outputs.values()}
        assert {"system.Metrics", "system.Markdown"} <= kinds[node.name]
    training = {"pretrain", "extend", "upcycle", "sft_seed", "sft", "reward", "dpo", "online"}
    gates = {"collect", "dedup", "tokens", "rank", "synthesize"}
    paged = {name for name, kind in kinds.items() if "system.HTML" in kind}
    assert paged == training | gates | {"long_context", "report"}
    assert [name for name, kind in kinds.items() if "system.ClassificationMetrics" in kind] == ["safety"]
