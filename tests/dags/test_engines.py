"""Engines that cannot be opened are refused when a recipe is read, planned, compiled or run: every field at once."""

import json
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from tests.architecture.places import ROOT
from tests.dags.conftest import qwenops

from qwenops.errors import RecipeError
from qwenops.generation.config import EngineConfig
from qwenops.recipe.schema import NODES, Recipe
from qwenops_pipelines.meshes import check_fit
from qwenops_pipelines.placements import by_name
from qwenops_pipelines.recipes import load_recipe

REPORTED = ("qwen2_0_5b", "qwen2_1_5b", "qwen2_7b", "qwen2_57b_a14b", "qwen2_72b")
# Every stage that can ask a model, asked to.
ALL = (
    "quality.rubric.num_documents=1",
    "ontology.tagger=llm",
    "evolve.evolver=llm",
    "synthesize.writer=llm",
    "safety.judge=llm",
)
ENDPOINT = '{"kind": "endpoint", "url": "http://127.0.0.1:1/v1", "model": "m"}'


def engine_fields(config: BaseModel, path: str = "") -> dict[str, EngineConfig]:
    found = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, EngineConfig):
            found[f"{path}{name}"] = value
        elif isinstance(value, BaseModel):
            found |= engine_fields(value, f"{path}{name}.")
    return found


def with_engines(engine: str, *more: str) -> Recipe:
    fields = engine_fields(load_recipe("smoke", []))
    return load_recipe("smoke", [*(f"{field}={engine}" for field in fields), *ALL, *more])


def test_every_engine_of_a_recipe_is_known_to_the_check():
    recipe = with_engines(ENDPOINT)
    asked = {f"{node}.{use.field}" for node in NODES for use in getattr(recipe, node).engines()}
    assert asked == set(engine_fields(recipe))


def test_engines_that_nobody_asks_need_nothing():
    load_recipe("smoke", ['ontology.engine={"kind": "endpoint"}', 'safety.judge_engine={"kind": "endpoint"}'])


def test_weights_of_an_engine_count_where_a_stage_opens_it():
    fields = [f'{field}={{"model": "owner/name"}}' for field in engine_fields(load_recipe("smoke", []))]
    asked = {"quality", "ontology", "evolve", "rank", "synthesize", "benchmarks", "safety", "multilingual"}
    assert counting(load_recipe("smoke", [*fields, *ALL])) == asked
    assert counting(load_recipe("smoke", fields)) == asked - {"quality", "ontology", "evolve"}


def counting(recipe: Recipe) -> set[str]:
    """Nodes whose output depends on the model owner/name."""
    return {node for node in NODES if any(thing.name == "owner/name" for thing in getattr(recipe, node).outside())}


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("in_process", ["model"]),
        ("vllm", ["model"]),
        ("endpoint", ["url", "model"]),
    ],
)
def test_recipe_whose_engines_lack_something_is_refused_when_read_naming_every_field(kind, named):
    with pytest.raises(RecipeError) as refused:
        with_engines(json.dumps({"kind": kind}))
    owners = ["quality.rubric.engine", "ontology.engine", "evolve.engine", "safety.judge_engine"]
    with_model = ["rank.engine", "synthesize.engine", "synthesize.writer_engine", "benchmarks.engine", "safety.engine"]
    owners += with_model if kind == "endpoint" else []
    assert [
        f"{owner}.{field}" for owner in owners for field in named if f"{owner}.{field}" not in str(refused.value)
    ] == []
    if kind != "endpoint":
        assert not [owner for owner in with_model if f"{owner}.model" in str(refused.value)]


def test_long_context_of_an_endpoint_is_refused_when_read():
    with pytest.raises(RecipeError, match=r"rank\.engine\.long_context plain"):
        load_recipe("smoke", [f"rank.engine={ENDPOINT}", "rank.engine.long_context=yarn"])


@pytest.mark.parametrize("name", REPORTED)
def test_recipe_of_the_report_starts_where_vllm_is_and_elsewhere_every_engine_is_named(name):
    recipe = load_recipe(name, [])
    check_fit(recipe, by_name("h200_node"))
    for placement in ("laptop", "kind"):
        with pytest.raises(RecipeError) as refused:
            check_fit(recipe, by_name(placement))
        used = [f"{node}.{use.field}" for node in NODES for use in getattr(recipe, node).engines()]
        assert len(used) == 8
        assert [field for field in used if f"{field}.kind" not in str(refused.value)] == []


@pytest.mark.parametrize("command", ["plan", "compile", "run"])
def test_engines_are_asked_for_by_every_command(tmp_path, command):
    rest = {"plan": (), "compile": ("-o", tmp_path / "p.yaml"), "run": ("--out", tmp_path / "out")}[command]
    engine = '{"kind": "vllm", "api_key_variable": "NOWHERE_SET"}'  # pragma: allowlist secret
    result = qwenops(command, "smoke", "--set", f"rank.engine={engine}", "--placement", "laptop", *rest)
    assert result.returncode == 2, result.stderr
    assert "vLLM in this environment" in result.stderr
    assert "NOWHERE_SET in the environment for rank.engine.api_key_variable" in result.stderr
    assert not list(tmp_path.iterdir())


def test_key_of_an_endpoint_must_be_in_the_pods_that_ask_it(monkeypatch):
    recipe = load_recipe("smoke", [f"rank.engine={ENDPOINT}", "rank.engine.api_key_variable=JUDGE_KEY"])
    with pytest.raises(RecipeError, match="JUDGE_KEY in the secret_env"):
        check_fit(recipe, by_name("kind"))
    check_fit(recipe, by_name("kind").model_copy(update={"secret_env": {"JUDGE_KEY": "judge/key"}}))
    with pytest.raises(RecipeError, match="JUDGE_KEY in the environment"):
        check_fit(recipe, by_name("laptop"))
    monkeypatch.setenv("JUDGE_KEY", "long-enough-to-be-one")
    check_fit(recipe, by_name("laptop"))


@pytest.mark.parametrize(
    ("model", "on_laptop", "on_cluster"),
    [
        ("owner/name", True, True),
        ("owner/name@v1.0", True, True),
        ("/no/such/folder", False, True),
        ("HERE", True, True),
        ("EMPTY", False, True),
        ("model.gguf", False, False),
        ("pypi:a==1/b.gguf@00", False, False),
    ],
)
def test_model_of_an_engine_is_a_folder_or_a_hub_id(tmp_path, model, on_laptop, on_cluster):
    (tmp_path / "HERE").mkdir()
    (tmp_path / "HERE" / "config.json").write_text("{}")
    (tmp_path / "EMPTY").mkdir()
    place = str(tmp_path / model) if model in ("HERE", "EMPTY") else model
    recipe = load_recipe("smoke", [f"rank.engine.model={place}"])
    for placement, taken in (("laptop", on_laptop), ("kind", on_cluster)):
        if taken:
            check_fit(recipe, by_name(placement))
        else:
            with pytest.raises(RecipeError, match=r"a folder with config.json or a hub id.*rank\.engine\.model"):
                check_fit(recipe, by_name(placement))


def test_vllm_needs_an_accelerator_where_its_stage_runs():
    recipe = load_recipe(
        "tiny", ["quality.rubric.num_documents=1", 'quality.rubric.engine={"kind": "vllm", "model": "owner/name"}']
    )
    with pytest.raises(RecipeError, match=r"an accelerator in the pods of data for quality\.rubric\.engine\.kind"):
        check_fit(recipe, by_name("h200_node"))


@pytest.mark.parametrize("name", ["kind", "h200_node"])
def test_shipped_placement_says_vllm_where_its_image_has_the_extra(name):
    images = yaml.safe_load((Path(ROOT) / "infra" / "versions.yaml").read_text(encoding="utf-8"))["images"]
    placement = by_name(name)
    image = placement.image.removeprefix("qwenops/").partition(":")[0]
    assert ("vllm" in placement.image_engines) == ("vllm" in images[image]["extras"])
