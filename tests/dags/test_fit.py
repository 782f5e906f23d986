"""Sizes that no model can have and recipes that a placement cannot train are refused alike by every command."""

import json

import pytest
from google.protobuf import json_format
from tests.dags.conftest import qwenops
from transformers import Qwen2Config, Qwen2ForCausalLM

from qwenops.errors import RecipeError
from qwenops.recipe.codec import canonical
from qwenops_pipelines.dags.build import build
from qwenops_pipelines.limits import ARGUMENT_BYTES, FORM_BYTES
from qwenops_pipelines.meshes import check_fit
from qwenops_pipelines.placements import by_name
from qwenops_pipelines.recipes import load_recipe

SIZE = "pretrain.size."
# hidden_size 128, four query heads over two.
WRONG = [
    ((f"{SIZE}num_query_heads=3", f"{SIZE}hidden_size=132"), "divides the 3 query heads .1, 3.: not 2"),
    ((f"{SIZE}hidden_size=130",), "128 or 136: not 130"),
    ((f"{SIZE}hidden_size=4",), "8: not 4"),
    ((f"{SIZE}num_kv_heads=8",), "not 8"),
    ((f"{SIZE}num_layers=0",), "num_layers"),
    ((f"{SIZE}intermediate_size=-1",), "intermediate_size"),
    ((f"{SIZE}vocab_rows=0",), "vocab_rows"),
    ((f"{SIZE}num_kv_heads=0",), "num_kv_heads"),
    ((f"{SIZE}rms_norm_epsilon=0",), "rms_norm_epsilon"),
    (("upcycle.experts.num_active=99",), "num_active at most num_experts"),
    (("upcycle.experts.shared_width=0",), "shared_width of at least 1"),
    (("upcycle.start=function_preserving", "upcycle.experts.shared_width=8"), "shared_width of at least"),
    ((f'{SIZE}experts={{"num_experts":4}}',), "num_active at most num_experts"),
    ((f'{SIZE}experts={{"num_experts":4,"num_active":2}}',), "pretrain.size.experts of null"),
    (("mixture.num_heads=5",), "hidden_size that 5 heads"),
    (("extend.training.batch_tokens=100",), "at least one row, 256: not 100"),
    (("upcycle.training.batch_tokens=1",), "at least one row"),
]


@pytest.mark.parametrize(("overrides", "words"), WRONG, ids=lambda value: str(value)[:40])
def test_size_that_no_model_has_is_refused_when_it_is_read(overrides, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe("smoke", list(overrides))


@pytest.mark.parametrize(("heads", "kv", "width"), [(4, 2, 128), (6, 3, 132), (1, 1, 2), (3, 2, 132), (4, 2, 132)])
def test_sizes_that_are_taken_are_those_transformers_can_run(heads, kv, width):
    overrides = [f"{SIZE}num_query_heads={heads}", f"{SIZE}num_kv_heads={kv}", f"{SIZE}hidden_size={width}"]
    shape = {"num_attention_heads": heads, "num_key_value_heads": kv, "hidden_size": width}
    model = Qwen2ForCausalLM(Qwen2Config(num_hidden_layers=1, intermediate_size=8, vocab_size=8, **shape))
    try:
        model(input_ids=model.dummy_inputs["input_ids"] % 8)
        runs = True
    except RuntimeError:
        runs = False
    try:
        load_recipe("smoke", overrides)
        taken = True
    except RecipeError:
        taken = False
    assert taken == runs


@pytest.mark.parametrize("recipe", ["smoke", "smol"])
@pytest.mark.parametrize("command", ["plan", "compile", "run"])
def test_step_with_fewer_rows_than_workers_is_refused_by_every_command(tmp_path, recipe, command):
    placement = tmp_path / "many.json"
    placement.write_text(json.dumps({"name": "many", "image": "python:3.11", "num_workers": 16}))
    rest = {"plan": (), "compile": ("-o", tmp_path / "p.yaml"), "run": ("--out", tmp_path / "out")}[command]
    result = qwenops(command, recipe, "--placement", placement, *rest)
    assert result.returncode == 2, result.stderr
    most = {"smoke": 8, "smol": 1}[recipe]
    assert "fewer rows in a step than the placement has workers" in result.stderr
    assert f"at most {most} workers" in result.stderr
    assert not list(tmp_path.glob("[!m]*"))
    fits = load_recipe(recipe, [])
    check_fit(fits, by_name("laptop").model_copy(update={"num_workers": most}))
    with pytest.raises(RecipeError):
        check_fit(fits, by_name("laptop").model_copy(update={"num_workers": 2 * most}))


def test_mesh_without_a_place_per_worker_is_refused_when_the_placement_is_read(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"name": "mine", "image": "i", "num_workers": 3, "mesh": {"context": 2}}))
    with pytest.raises(RecipeError, match="does not fit the workers"):
        by_name(str(path))


def test_recipe_too_long_for_kubeflow_is_refused_where_kubeflow_carries_it_and_nowhere_else():
    sources = [{"kind": "folder", "name": f"s{n}", "path": f"/data/{n:0120d}"} for n in range(900)]
    recipe = load_recipe("tiny", [f"collect.sources={json.dumps(sources)}"])
    check_fit(recipe, by_name("laptop"))
    with pytest.raises(RecipeError, match="MAX_ARG_STRLEN"):
        check_fit(recipe, by_name("h200_node"))


def test_longest_recipe_and_the_pipeline_around_it_fit_one_argument():
    recipe, placement = load_recipe("tiny", []), by_name("h200_node")
    root = json_format.MessageToDict(build(recipe, placement).pipeline_spec.root)
    text = root["inputDefinitions"]["parameters"]["recipe_text"].pop("defaultValue")
    assert text == canonical(recipe)
    assert len(json.dumps(root).encode()) + FORM_BYTES < ARGUMENT_BYTES
