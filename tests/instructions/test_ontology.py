"""The ontology: merging, dropping, fixed point, edits, and the stage itself."""

import json

import pytest

from qwenops.contracts.conversation import Conversation, ask, read_conversations
from qwenops.errors import RecipeError
from qwenops.generation.engine import Sample
from qwenops.instructions.ontology.config import Edit, OntologyConfig
from qwenops.instructions.ontology.edits import read_edits
from qwenops.instructions.ontology.normalise import build_ontology
from qwenops.instructions.ontology.run import run
from qwenops.instructions.ontology.tagger import LexicalTagger, LlmTagger, parse_tags

CONFIG = OntologyConfig(
    task_kinds=("reverse", "sort"),
    tasks_per_kind=30,
    heldout_per_kind=5,
    document_instructions=20,
    tagger="lexical",
    max_passage_characters=400,
    min_frequency=2,
    association_support=3,
    semantic_distance=0.2,
)
RAW = [("Sorting", "numbers"), ("sorting!", "numbers"), ("sorted", "numbers"), ("rare",), ("cosplay", "role play")] * 3


def test_inflections_merge_and_rare_tags_are_dropped():
    ontology = build_ontology([*RAW, ("once",)], CONFIG)
    assert "once" not in ontology.counts
    merged = next(tags for tags in ontology.members.values() if "Sorting" in tags)
    assert {"Sorting", "sorting!", "sorted"} <= set(merged)
    assert ontology.steps["raw"] > ontology.steps["rules"] >= ontology.steps["final"]


def test_tags_that_always_occur_together_become_one():
    ontology = build_ontology(RAW, CONFIG)
    assert any({"cosplay", "role play"} <= set(tags) for tags in ontology.members.values())


def test_the_ontology_of_its_own_output_is_itself():
    first = build_ontology(RAW, CONFIG)
    again = build_ontology(first.rows, CONFIG)
    assert (again.rows, again.counts) == (first.rows, first.counts)


def test_people_can_rename_merge_and_drop(tmp_path):
    table = tmp_path / "ontology.csv"
    table.write_text("tag\tcount\taction\tinto\tmerged_from\nrare\t3\tdrop\t\t\nsorting\t9\trename\tordering\t\n")
    ontology = build_ontology(
        [("rare", "sorting"), ("sorting",)] * 3,
        CONFIG.model_copy(
            update={
                "edits": read_edits(table),
                "association_support": 100,
            }
        ),
    )
    assert list(ontology.counts) == ["ordering"]


def test_an_edit_of_an_unknown_tag_is_a_recipe_error():
    with pytest.raises(RecipeError, match="does not exist"):
        build_ontology(RAW, CONFIG.model_copy(update={"edits": (Edit(action="drop", tag="nothing"),)}))


def test_the_lexical_tagger_sees_language_shape_and_words():
    row = Conversation(id="a", messages=ask("Reverse, then drop the first: 381752"))
    assert {"English", "digit string", "several steps", "reverse"} <= set(LexicalTagger(20).tag([row])[0])


def test_the_llm_tagger_keeps_what_parses():
    class Scripted:
        name = "stub"

        def generate(self, prompts, sampling):
            texts = ('Here: [{"tag": "Sorting", "explanation": "x"}, {"no": 1}]', "I cannot")
            return [[Sample(text)] for text in texts]

    rows = [Conversation(id=str(i), messages=ask("Sort 3 1 2")) for i in range(2)]
    tagger = LlmTagger(Scripted(), 5)
    assert tagger.tag(rows) == [("Sorting",), ()]
    assert tagger.answers == {"all": 2, "not_understood": 1}
    assert parse_tags("[broken") == ()


def test_the_stage_writes_tagged_rows_and_the_same_ontology_twice(documents, make_stage):
    stages = [make_stage("ontology"), make_stage("again")]
    for stage in stages:
        run(CONFIG, documents=documents, stage=stage)
    for name in ("ontology.json", "demonstrations.jsonl"):
        assert (stages[0].out / name).read_bytes() == (stages[1].out / name).read_bytes()
    rows = read_conversations(stages[0].out)
    known = {tag["tag"] for tag in json.loads((stages[0].out / "ontology.json").read_text())["tags"]}
    assert {row.source for row in rows} == {"verifiable", "documents", "safety"}
    assert all(set(row.tags) <= known for row in rows)
    assert sum(row.split == "heldout" for row in rows) == 10
