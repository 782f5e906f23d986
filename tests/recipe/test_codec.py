"""Recipes are read strictly and have one text."""

import json
import subprocess
import sys

import pytest

from qwenops.errors import RecipeError
from qwenops.recipe.codec import canonical, decode, fingerprint
from qwenops.recipe.schema import NODES, Recipe, resolve
from qwenops_pipelines.recipes import RECIPES, load_recipe


@pytest.fixture(params=RECIPES)
def recipe(request):
    return load_recipe(request.param, [])


def test_path_below_the_home_is_expanded_where_a_shell_leaves_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/keeper")
    recipe = load_recipe("smoke", ["benchmarks.folder=~/sets", "ontology.engine.model=a~b/c"])
    assert (recipe.benchmarks.folder, recipe.ontology.engine.model) == ("/home/keeper/sets", "a~b/c")


def test_recipe_text_round_trip_is_exact(recipe):
    assert decode(Recipe, canonical(recipe)) == recipe
    assert canonical(decode(Recipe, canonical(recipe))) == canonical(recipe)


def test_recipe_text_with_other_key_order_has_the_same_fingerprint(recipe):
    plain = json.loads(canonical(recipe))
    shuffled = json.dumps(dict(reversed(plain.items())), indent=3)
    assert fingerprint(decode(Recipe, shuffled)) == fingerprint(recipe)


def test_recipe_fingerprint_is_equal_in_another_process(recipe):
    code = (
        "from qwenops_pipelines.recipes import load_recipe; from qwenops.recipe.codec import fingerprint;"
        f"print(fingerprint(load_recipe({recipe.name!r}, [])))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == fingerprint(recipe)


def test_reading_a_recipe_imports_no_torch():
    code = "import sys, qwenops_pipelines.recipes as r; r.load_recipe('tiny', []); print('torch' in sys.modules)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == "False"


def test_each_node_gets_its_own_slice_and_only_that():
    base, changed = (resolve(load_recipe("tiny", s)) for s in ([], ["sft.training.learning_rate=0.00123"]))
    assert set(base) == set(NODES)
    assert [node for node in NODES if base[node] != changed[node]] == ["sft"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("pretrain.training.stepz=3", r"pretrain\.training\.stepz[\s\S]*steps"),
        ("pretrain.training.steps=many", r"pretrain\.training\.steps"),
        ("pretrain.training.learning_rate=-1", r"pretrain\.training\.learning_rate"),
        ("nothing.here=3", r"nothing\.here"),
        ("seed", r"path\.to\.field=value"),
        ("seed=1.5", "seed"),
    ],
)
def test_override_that_is_wrong_is_refused_with_its_path(override, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe("tiny", [override])


def test_recipe_that_is_not_finite_or_not_json_is_refused():
    text = canonical(load_recipe("tiny", []))
    for broken in (text[:-5], text.replace('"seed":', '"seed":NaN,"x":', 1), "[]"):
        with pytest.raises(RecipeError):
            decode(Recipe, broken)


def test_unknown_recipe_names_those_that_exist():
    with pytest.raises(RecipeError, match="tiny"):
        load_recipe("tinny", [])
