"""A rehearsal keeps what a recipe decides and changes its dimensions; every recipe that ships is rehearsed whole."""

import json
import re
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from tests.dags.conftest import qwenops

from qwenops.errors import RecipeError
from qwenops.recipe.config import Config
from qwenops.recipe.mesh import ParallelConfig
from qwenops.recipe.schema import Recipe
from qwenops_pipelines.dags.nodes import NODES
from qwenops_pipelines.meshes import check_fit
from qwenops_pipelines.placements import by_name
from qwenops_pipelines.recipes import RECIPES, load_recipe
from qwenops_pipelines.rehearsal import changes, describe_changes, rehearsal

WHOLE_SECONDS = 1800
# Everything that may differ, `*` being one node; a field that is not here is rehearsed as the recipe has it.
_STAND_INS = """
name export.model_name register.model_name pretrain.init_from tokenizer.init_from
ontology.tagger evolve.evolver rank.judge *.engine.kind synthesize.writer_engine.kind
"""
_DIMENSIONS = """
collect.sources.cap_bytes collect.sources.rules.cap_bytes collect.part_bytes
quality.classifier.num_features quality.classifier.num_documents quality.classifier.num_characters
quality.perplexity.num_words quality.rubric.max_new_tokens
dedup.planted_documents decontaminate.planted_items
tokenizer.vocabulary tokenizer.sample_bytes tokenizer.measured_bytes
mixture.proxies mixture.hidden_size mixture.num_layers mixture.num_heads mixture.context_length_tokens
mixture.sample_bytes mixture.measured_rows mixture.simulated mixture.averaged mixture.planned_tokens
tokens.checked_documents
pretrain.size.hidden_size pretrain.size.num_layers pretrain.size.num_query_heads pretrain.size.num_kv_heads
pretrain.size.intermediate_size pretrain.size.vocab_rows
*.phases.length *.phases.steps *.evaluation_tokens *.evaluation_needles
*.training.steps *.training.batch_tokens *.training.warmup_steps *.training.micro_batch_tokens
*.training.checkpoint_every_steps
upcycle.experts.expert_width upcycle.experts.shared_width upcycle.length upcycle.heldout_tokens
ontology.tasks_per_kind ontology.heldout_per_kind ontology.document_instructions ontology.max_passage_characters
ontology.min_frequency ontology.association_support
select.size select.quotas.rows
evolve.demonstrations_per_source evolve.verifiable_demonstrations evolve.heldout_evolved
*.max_length_tokens *.measure.prompts *.measure.max_new_tokens *.pairs_per_step
rank.prompts rank.strategies.max_new_tokens
synthesize.rejection_prompts synthesize.rejection_sampling.max_new_tokens synthesize.rejection_sampling.n
synthesize.programs_per_task synthesize.following_instructions synthesize.repurposed_documents
synthesize.max_passage_characters synthesize.constitution_prompts
reward.pretraining_pairs reward.pairs reward.heldout_pairs
online.episodes online.prompts_per_episode online.samples online.screened_prompts online.guard.prompts
online.ppo.value_warmup_steps online.ppo.pretraining_rows
*.max_new_tokens *.limit_items *.max_shots benchmarks.verifiable_per_kind safety.limit_per_cell
long_context.needles_per_depth long_context.text_tokens
multilingual.tokens_per_language multilingual.prompts_per_language
export.compared_tokens export.quickstart_new_tokens
"""
# A toy learns at no rate of a large model, and may solve no prompt even once.
RATES = [f"{node}.training.{name}" for node in ("sft_seed", "sft") for name in ("learning_rate", "final_learning_rate")]
RATES.append("online.solved_share")
STAND_INS, DIMENSIONS = _STAND_INS.split(), _DIMENSIONS.split()
# Null and zero of these mean everything.
BOUNDS_NOTHING = ("cap_bytes", "limit_items", "limit_per_cell")


def within(field: str, patterns: list[str]) -> bool:
    plain = re.sub(r"\[\d+\]", "", field)
    return plain in patterns or f"*.{plain.partition('.')[2]}" in patterns


def value_at(recipe: Recipe, field: str) -> Any:
    value: Any = recipe
    for part in field.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("name", RECIPES)
def test_rehearsal_changes_dimensions_and_stand_ins_alone(name):
    recipe = load_recipe(name, [])
    found = changes(recipe, rehearsal(recipe))
    assert [c.field for c in found if not within(c.field, [*STAND_INS, *DIMENSIONS, *RATES])] == []
    for change in found:
        if within(change.field, DIMENSIONS):
            assert isinstance(change.rehearsed, int)
            everything = not change.recipe and change.field.endswith(BOUNDS_NOTHING)
            assert everything or 0 < change.rehearsed < change.recipe, change


def settings(config: type[Config], path: str = "") -> list[tuple[str, Any]]:
    """Dotted path and type of every setting that is no whole number, below `config`."""
    found = []
    for name, field in config.model_fields.items():
        kind, place = field.annotation, f"{path}.{name}" if path else name
        if isinstance(kind, type) and issubclass(kind, Config):
            found += settings(kind, place)
        elif kind is float or get_origin(kind) is not None:
            found.append((place, kind))
    return found


def others(recipe: Recipe, field: str, kind: Any) -> list[Any]:
    """Other values than the recipe's for one setting; some may be refused."""
    value = value_at(recipe, field)
    if kind is float:
        return [value * 0.9, value * 1.1] if value else [0.5]
    words = [word for word in get_args(kind) if isinstance(word, str)]
    if words:
        return [word for word in words if word != value]
    return [value[:-1]] if isinstance(value, tuple) and len(value) > 1 and not isinstance(value[0], Config) else []


@pytest.mark.parametrize("name", ["tiny", "qwen2_57b_a14b"])
def test_any_other_choice_is_rehearsed_as_it_is(name):
    recipe, tried = load_recipe(name, []), 0
    for field, kind in settings(Recipe):
        for other in others(recipe, field, kind):
            plain = list(other) if isinstance(other, tuple) else other
            try:
                changed = load_recipe(name, [f"{field}={json.dumps(plain)}"])
            except RecipeError:
                continue
            tried += 1
            if not within(field, [*STAND_INS, *RATES]):
                assert value_at(rehearsal(changed), field) == other, field
    assert tried > 300


@pytest.mark.parametrize("name", RECIPES)
def test_shapes_keep_their_proportions(name):
    recipe = load_recipe(name, [])
    toy = rehearsal(recipe)
    size, small = recipe.pretrain.size, toy.pretrain.size
    assert small.num_query_heads / small.num_kv_heads == size.num_query_heads / size.num_kv_heads
    assert small.intermediate_size / small.hidden_size == approx(size.intermediate_size / size.hidden_size)
    assert toy.upcycle.experts.num_experts == recipe.upcycle.experts.num_experts
    for width in ("expert_width", "shared_width"):
        whole, part = (getattr(it.upcycle.experts, width) for it in (recipe, toy))
        assert part / small.hidden_size == approx(whole / size.hidden_size)
    assert (small.vocab_rows > toy.tokenizer.vocabulary) == (size.vocab_rows > recipe.tokenizer.vocabulary)
    rows = [phase.length for node in (toy.pretrain, toy.extend) for phase in node.phases]
    assert len(rows) == len(recipe.pretrain.phases) + len(recipe.extend.phases)
    assert sorted(rows) == rows
    assert rows[-1] <= 512


def approx(ratio: float) -> Any:
    return pytest.approx(ratio, rel=0.1)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("mesh", [{}, {"tensor": 2}, {"context": 2}], ids=str)
def test_two_workers_can_share_the_toy(name, mesh):
    two = by_name("laptop").model_copy(update={"num_workers": 2, "mesh": ParallelConfig(**mesh)})
    check_fit(rehearsal(load_recipe(name, [])), two)


def test_steps_are_made_of_passes_where_the_recipes_are():
    toy = rehearsal(load_recipe("qwen2_7b", []))
    for node in ("pretrain", "extend", "upcycle", "sft", "sft_seed"):
        loop = getattr(toy, node).training
        assert 0 < loop.micro_batch_tokens < loop.batch_tokens


def test_weights_that_exist_are_stood_in_for_and_named():
    smol = load_recipe("smol", [])
    toy = rehearsal(smol)
    for field in ("pretrain.init_from", "tokenizer.init_from"):
        assert (field, smol.pretrain.init_from, "") in changes(smol, toy)
    assert "tokenizer, pretrain: init_from" in describe_changes(smol, toy)


def test_teacher_at_an_endpoint_teaches_the_rehearsal_too():
    endpoint = '{"kind": "endpoint", "url": "http://127.0.0.1:1/v1", "model": "m"}'
    toy = rehearsal(load_recipe("qwen2_7b", [f"ontology.engine={endpoint}", f"rank.engine={endpoint}"]))
    assert toy.ontology.tagger == "llm"
    assert toy.ontology.engine.url == toy.rank.engine.url == "http://127.0.0.1:1/v1"
    assert toy.evolve.evolver == "rules"


def test_pages_of_this_machine_stand_beside_sources_that_may_be_out_of_reach():
    sources = '[{"kind": "folder", "name": "mine", "path": "/not/here"}]'
    toy = rehearsal(load_recipe("qwen2_7b", [f"collect.sources={sources}"]))
    assert [source.name for source in toy.collect.sources] == [
        "mine",
        "python-code-rehearsal",
        "python-docs-rehearsal",
    ]


def test_nothing_of_a_rehearsal_bears_the_models_own_name():
    toy = rehearsal(load_recipe("qwen2_7b", []))
    assert {toy.name, toy.export.model_name, toy.register.model_name} == {
        "qwen2_7b-rehearsal",
        "qwen2-7b-instruct-rehearsal",
    }


def test_recipe_that_its_placement_cannot_hold_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "p.json").write_text('{"name": "p", "image": "i", "num_workers": 8, "mesh": {"tensor": 8}}')
    result = qwenops("rehearse", "smol", "--placement", tmp_path / "p.json", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "does not divide the query heads" in result.stderr
    assert not (tmp_path / "out").exists()


def rehearse(name: str, out: Path, *options: str) -> None:
    """Run a whole rehearsal and hold it against what it says of itself."""
    result = qwenops("rehearse", name, "--out", out, *options)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    record = json.loads((out / "run.json").read_text())
    assert record["recipe"] == f"{name}-rehearsal"
    assert {node: stage["status"] for node, stage in record["stages"].items()} == {n.name: "succeeded" for n in NODES}
    recipe = load_recipe(name, [])
    assert describe_changes(recipe, rehearsal(recipe)) in result.stdout
    assert "judge nothing" in result.stdout
    done = load_recipe(str(out / "recipe.json"), [])
    assert done == rehearsal(recipe)


@pytest.mark.integration
@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_rehearsed_whole(name, tmp_path):
    # A step of smol holds fewer rows than the node has GPUs.
    rehearse(name, tmp_path / "run", "--placement", "laptop" if name == "smol" else "h200_node")


@pytest.mark.integration
def test_rehearsal_shared_by_two_workers(tmp_path):
    rehearse("qwen2_57b_a14b", tmp_path / "run", "--workers", "2")
