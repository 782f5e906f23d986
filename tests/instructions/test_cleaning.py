"""Rows that hold an evaluation item are dropped and counted wherever instructions, answers and pairs are made."""

import json
from dataclasses import replace

import pyarrow
import pytest
from pyarrow import parquet

from qwenops.contracts.conversation import PROMPTS, Conversation, answer, ask, read_conversations, write_conversations
from qwenops.contracts.preference import Preference, read_preferences
from qwenops.generation.engine import Sampling
from qwenops.instructions.cleaning import Cleaner
from qwenops.instructions.evolve.config import EvolveConfig
from qwenops.instructions.evolve.run import run as run_evolve
from qwenops.instructions.ontology.config import OntologyConfig
from qwenops.instructions.ontology.run import run as run_ontology
from qwenops.instructions.rank.config import RankConfig
from qwenops.instructions.rank.run import run as run_rank
from qwenops.instructions.synthesize.config import SynthesizeConfig
from qwenops.instructions.synthesize.run import run as run_synthesize
from qwenops.recipe.schema import resolve
from qwenops.tasks.config import OverlapConfig
from qwenops.tasks.verifiable import generate
from qwenops_pipelines.recipes import load_recipe

_QUESTION = (
    "A baker fills 12 trays with 18 rolls each and sells three quarters of them before noon. "
    "How many rolls are left in the shop in the afternoon?"
)
_ANSWER = "He fills 12*18=<<12*18=216>>216 rolls and a quarter of them, 216/4=<<216/4=54>>54 rolls, is left.\n#### 54"
_CONTAINS = "contains_gsm8k"


@pytest.fixture
def rule(tmp_path):
    (tmp_path / "sets/gsm8k").mkdir(parents=True)
    (tmp_path / "sets/gsm8k/test.jsonl").write_text(json.dumps({"question": _QUESTION, "answer": _ANSWER}))
    return OverlapConfig(sets=("gsm8k",), folder=str(tmp_path / "sets"))


@pytest.fixture
def leaking(tmp_path):
    text = f"Notes\n\nThe shop stands at the river.\n\n{_QUESTION}\n\nNobody knew the answer to that."
    row = {"id": "leak", "domain": "prose", "lang": "en", "license": "PD", "split": "train", "text": text}
    clean = row | {"id": "clean", "text": text.replace(_QUESTION, "The rolls are warm. The baker is up before all.")}
    (tmp_path / "documents").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist([row, clean]), tmp_path / "documents/part-0.parquet")
    return tmp_path


def test_question_answer_and_pair_are_each_recognised(rule, make_stage):
    cleaner = Cleaner(rule, make_stage("any"))
    rows = [
        Conversation("a", ask(f"Solve it: {_QUESTION.upper()}")),
        Conversation("b", answer(ask("How many are left?"), _ANSWER)),
        Conversation("c", answer(ask("Name a baker's tool."), "A peel.")),
    ]
    assert [row.id for row in cleaner.conversations(rows)] == ["c"]
    pair = Preference("p", ask("Tell me a riddle."), "I know none.", _QUESTION, "s", "ranked", "machine:x")
    assert cleaner.preferences([pair, replace(pair, id="q", rejected="Why?")]) == [
        replace(pair, id="q", rejected="Why?")
    ]
    assert cleaner.dropped == {_CONTAINS: 3}


def test_set_without_files_and_no_rule_at_all_are_warned_of(rule, make_stage):
    stage = make_stage("any")
    Cleaner(rule.model_copy(update={"sets": ("mmlu",)}), stage)
    Cleaner(None, stage)
    assert "mmlu" in stage.warnings[0] and len(stage.warnings) == 2


def test_ontology_takes_no_instruction_from_an_item_in_a_document(rule, leaking, make_stage):
    stage = make_stage("ontology")
    config = OntologyConfig(
        task_kinds=("copy",), tasks_per_kind=4, heldout_per_kind=1, tagger="lexical", max_passage_characters=400,
        safety_prompts="omit", decontamination=rule,
    )  # fmt: skip
    run_ontology(config, documents=leaking, stage=stage)
    assert stage.counts["dropped"] == {"repeated": 0, _CONTAINS: 1}
    assert stage.metrics["contaminated.gsm8k"] == 1
    assert "rolls each" not in (stage.out / "demonstrations.jsonl").read_text()


def test_evolve_drops_children_that_hold_an_item(rule, tmp_path, make_stage):
    rows = [Conversation(f"c{i}", answer(ask(f"Tell story {i}. {_QUESTION}"), "It is late. Yes.")) for i in range(4)]
    write_conversations(tmp_path, rows)
    stage = make_stage("evolve")
    config = EvolveConfig(evolver="rules", evolved_share=1.0, max_rouge_l=1.0, decontamination=rule)
    run_evolve(config, instructions=tmp_path, stage=stage)
    assert stage.counts["dropped"][_CONTAINS] > 0
    assert not any(row.strategy == "evolved" for row in read_conversations(stage.out))


def test_rank_drops_instructions_whose_answers_or_prompt_hold_an_item(rule, tmp_path, checkpoint, make_stage):
    rows = [replace(row, messages=row.prompt) for row in generate("copy", 4, 1, "train")]
    write_conversations(tmp_path, [*rows, Conversation("leak", ask(_QUESTION))], PROMPTS)
    strategies = (Sampling(temperature=1.0, n=12, max_new_tokens=100, seed=1),)
    config = RankConfig(prompts=5, judge="machine", strategies=strategies, decontamination=rule)
    stage = make_stage("rank")
    run_rank(config, instructions=tmp_path, checkpoint=checkpoint, stage=stage)
    assert stage.counts["dropped"][_CONTAINS] == 1
    assert not any("rolls each" in pair.prompt[-1]["content"] for pair in read_preferences(stage.out))


def test_synthesize_drops_what_it_makes_of_a_passage_with_an_item(rule, leaking, checkpoint, make_stage):
    write_conversations(leaking, [])
    config = SynthesizeConfig(strategies=("repurposing",), writer="written", decontamination=rule)
    stage = make_stage("synthesize")
    run_synthesize(config, instructions=leaking, checkpoint=checkpoint, documents=leaking, stage=stage)
    assert stage.counts["dropped"][_CONTAINS] > 0
    rows = read_conversations(stage.out)
    assert not any("rolls each" in message["content"] for row in rows for message in row.messages)


def test_rows_follow_the_rule_of_the_documents_unless_a_stage_names_its_own():
    changes = ["decontaminate.folder=/sets", "decontaminate.min_share=0.5"]
    slices = resolve(load_recipe("smoke", changes))
    for node in ("ontology", "evolve", "rank", "synthesize"):
        rule = slices[node].config.decontamination
        assert (rule.folder, rule.min_share, rule.sets) == ("/sets", 0.5, ("continuation",))
