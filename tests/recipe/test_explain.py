"""`qwenops explain`, `recipes` and `completion`: what a newcomer asks before anything runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qwenops.errors import RecipeError
from qwenops.recipe.config import Config
from qwenops.recipe.fields import bare_type, inner_type
from qwenops.recipe.schema import NODES, Recipe
from qwenops_pipelines.completion import fields
from qwenops_pipelines.explain import explain
from qwenops_pipelines.recipes import RECIPES, load_recipe


def _paths(owner, path=""):
    for name, field in owner.model_fields.items():
        yield path + name, field
        below = inner_type(owner, name)
        if isinstance(below, type) and issubclass(below, Config):
            yield from _paths(below, f"{path}{name}.")


def test_every_field_of_a_recipe_is_explained_with_its_source():
    found = dict(_paths(Recipe))
    assert len(found) > 300
    for path, field in found.items():
        shown = explain(path)
        assert shown.startswith(path)
        if not hasattr(bare_type(field.annotation), "model_fields"):
            assert (field.description or "").split()[-1] in shown


def test_field_says_type_limits_default_value_and_source():
    shown = explain("sft.training.learning_rate", load_recipe("tiny", []))
    assert "number, above 0; default 0.0003; here 0.001" in shown
    assert "Qwen1's" in shown
    assert "here" not in explain("sft.training.learning_rate")


def test_kinds_of_a_list_and_fields_of_its_items_are_explained():
    assert "collect.sources.hub: " in explain("collect.sources")
    assert "collect.sources.hub.revision  (text; must be given)" in explain("collect.sources.hub")
    assert explain("pretrain.phases[0].steps") == explain("pretrain.phases.steps")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("sfg", "did you mean sft"),
        ("sft.trainin", "did you mean training"),
        ("seed.a", "has no fields"),
        ("collect.sources.hubb", "did you mean hub"),
    ],
)
def test_unknown_path_names_the_nearest(path, said):
    with pytest.raises(RecipeError, match=said):
        explain(path)


def test_every_recipe_is_listed_with_its_purpose(capsys):
    from qwenops_pipelines.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["recipes"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(RECIPES)]] == list(RECIPES)
    assert all(len(line.split()) > 5 for line in lines[: len(RECIPES)])


def test_fields_go_on_from_the_last_dot():
    assert set(NODES) <= {path.rstrip(".") for path in fields("sf")}
    assert "sft.training." in fields("sft.") and "sft.epochs" in fields("sft.ep")
    assert "collect.sources[0].cap_bytes" not in fields("nowhere.")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("qwenops rehea", "rehearse"),
        ("qwenops run ti", "tiny"),
        ("qwenops run tiny --until sft_", "sft_seed"),
        ("qwenops run tiny --placement h2", "h200_node"),
        ("qwenops explain sft.training.learn", "sft.training.learning_rate"),
        ("qwenops run tiny --set sft.training.learn", "sft.training.learning_rate="),
    ],
)
def test_bash_completes_commands_recipes_stages_and_fields(line, expected, tmp_path):
    words = line.split()
    # As bash itself does after a tab, with the words that the user has typed.
    asks = f"""
eval "$(qwenops completion bash)"
COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; COMP_LINE="{line}"; COMP_POINT={len(line)}; COMP_TYPE=9
_python_argcomplete qwenops
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", asks],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        cwd=tmp_path,
        check=False,
    )
    assert [word.strip() for word in done.stdout.splitlines()] == [expected], done.stderr
