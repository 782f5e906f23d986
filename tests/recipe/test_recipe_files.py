"""Recipes as people write them: a few lines of YAML over one that ships, and paths into lists."""

import json

import pytest
import yaml

from qwenops.errors import RecipeError
from qwenops.recipe.codec import canonical
from qwenops_pipelines.recipes import load_recipe

CHANGES = """\
# what differs from tiny
base: tiny
seed: 11
sft: {training: {learning_rate: 1e-3}}
"""


def _written(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_few_lines_of_yaml_change_what_they_name_and_nothing_else(tmp_path):
    tiny, mine = load_recipe("tiny", []), load_recipe(_written(tmp_path, "my run.yaml", CHANGES), [])
    changed = tiny.model_dump(mode="json")
    changed["name"], changed["seed"] = "my-run", 11
    changed["sft"]["training"]["learning_rate"] = 0.001
    assert mine.model_dump(mode="json") == changed


def test_whole_recipe_is_read_alike_as_json_and_as_yaml(tmp_path):
    smoke = load_recipe("smoke", [])
    plain = json.loads(canonical(smoke))
    assert load_recipe(_written(tmp_path, "a.json", json.dumps(plain, indent=1)), []) == smoke
    # Written by another library, in the YAML 1.1 that most tools write.
    assert load_recipe(_written(tmp_path, "a.yaml", yaml.safe_dump(plain, allow_unicode=True)), []) == smoke


def test_base_may_be_a_file_beside_and_lists_take_the_place_of_lists(tmp_path):
    _written(tmp_path, "first.yaml", "base: smoke\nseed: 3\npretrain: {phases: [{length: 64, steps: 40}]}\n")
    second = load_recipe(_written(tmp_path, "second.json", '{"base": "first.yaml", "name": "again"}'), ["seed=4"])
    assert (second.name, second.seed) == ("again", 4)
    assert [phase.length for phase in second.pretrain.phases] == [64]


def test_inline_changes_need_no_file():
    assert load_recipe('{"base": "smoke", "seed": 5}', []).seed == 5


@pytest.mark.parametrize("day", ["2026-12-01", "2026-12-01T10:00:00Z"])
def test_words_that_yaml_11_takes_for_dates_and_switches_stay_words(tmp_path, day):
    text = f"base: smoke\nregister: {{model_name: no}}\nexport: {{quickstart_prompt: {day}}}\n"
    recipe = load_recipe(_written(tmp_path, "words.yaml", text), [])
    assert (recipe.register.model_name, recipe.export.quickstart_prompt) == ("no", day)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: tinny\n", "tinny"),
        ("base: [tiny]\n", "has no base"),
        ("seed: 3\n", "Field required"),
        ("base: smoke\nseed: 3\nseed: 4\n", "line 3"),
        ("base: smoke\nsft:\n\ttraining: 1\n", "line 3"),
        ("base: smoke\nsft: {trainin: {}}\n", "did you mean training"),
        ("base: smoke\nseed: .nan\n", "NaN"),
        ("base: smoke\nseed: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
        ("- base: smoke\n", "a list"),
        ("just words\n", "a str"),
        ("", "a NoneType"),
        ("base: smoke\n---\nbase: tiny\n", "but found another document"),
        ("base: mine.yaml\n", "its own base"),
    ],
)
def test_file_that_is_no_recipe_is_told_with_its_place(tmp_path, text, said):
    with pytest.raises(RecipeError) as raised:
        load_recipe(_written(tmp_path, "mine.yaml", text), [])
    assert said in str(raised.value)
    assert len(str(raised.value)) < 1500


def test_aliases_within_aliases_are_refused_before_they_fill_the_memory(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(RecipeError, match="aliases"):
        load_recipe(_written(tmp_path, "bomb.yaml", "\n".join(lines)), [])


def test_one_item_of_a_list_is_set_by_its_place():
    changed = load_recipe("tiny", ["collect.sources[1].cap_bytes=5000", "pretrain.phases[2].steps=420"])
    tiny = load_recipe("tiny", [])
    assert changed.collect.sources[1].cap_bytes == 5000
    assert changed.collect.sources[0] == tiny.collect.sources[0]
    assert changed.pretrain == tiny.pretrain


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("collect.sources[99].cap_bytes=1", "collect.sources[0] to collect.sources["),
        ("collect.sources.cap_bytes=1", "collect.sources[0].FIELD=VALUE"),
        ("seed[0]=1", "seed as a whole: it is one value"),
        ("collect[0]=1", "it is fields"),
        ("collect..sources=1", "a dot between"),
        ("collect.sources[-1]=1", "a dot between"),
        ("collect.sources[0].cap_byte=1", "did you mean cap_bytes"),
        ("benchmarks.tasks[0][0]=1", "one value"),
    ],
)
def test_path_that_leads_nowhere_is_told_where_it_ends(change, said):
    with pytest.raises(RecipeError) as raised:
        load_recipe("tiny", [change])
    assert said in str(raised.value)
