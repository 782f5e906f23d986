"""The compiled pipeline is repeatable, has the edges of the table, and shows a short form."""

import pytest
import yaml

from qwenops.recipe.codec import fingerprint
from qwenops_pipelines.compile import compile_pipeline
from qwenops_pipelines.dags.edges import NODES, ancestors
from qwenops_pipelines.placements import by_name
from qwenops_pipelines.recipes import RECIPES, load_recipe


@pytest.mark.parametrize("placement", ["laptop", "h200_node", "kind"])
@pytest.mark.parametrize("name", RECIPES)
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
    spec = yaml.safe_load((tmp_path / "p.yaml").read_text())
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
    documents = list(yaml.safe_load_all((tmp_path / "p.yaml").read_text()))
    executors = documents[0]["deploymentSpec"]["executors"]
    assert not [name for name, spec in executors.items() if "accelerator" in spec["container"].get("resources", {})]
    environments = {name: {e["name"]: e["value"] for e in s["container"]["env"]} for name, s in executors.items()}
    with_gpu = {name for name, env in environments.items() if "nvidia.com/gpu" in env.get("QWENOPS_CLUSTER", "")}
    assert with_gpu == {
        f"exec-{node.name.replace('_', '-')}" for node in NODES if node.area not in ("data", "delivery")
    }


def test_until_keeps_the_ancestors_and_nothing_else():
    names = [node.name for node in ancestors("tokens")]
    assert names == ["collect", "ingest", "quality", "dedup", "decontaminate", "tokenizer", "mixture", "tokens"]
