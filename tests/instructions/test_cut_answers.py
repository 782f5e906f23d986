"""An answer that a model did not end never becomes something to imitate, and each is counted."""

from dataclasses import replace

import pytest

from qwenops.contracts.conversation import PROMPTS, Conversation, ask, read_conversations, write_conversations
from qwenops.contracts.preference import read_preferences
from qwenops.generation.engine import Sample, Sampling
from qwenops.instructions.evolve.config import EvolveConfig
from qwenops.instructions.evolve.evolver import llm_children
from qwenops.instructions.rank import run as rank
from qwenops.instructions.rank.config import RankConfig
from qwenops.instructions.synthesize.config import SynthesizeConfig
from qwenops.instructions.synthesize.constitution import apply_constitution, llm_answers
from qwenops.instructions.synthesize.execution import CodeTask, sampled_candidates
from qwenops.instructions.synthesize.rejection import sample_and_reject
from qwenops.instructions.synthesize.repurposing import repurpose
from qwenops.instructions.synthesize.run import run as synthesize
from qwenops.tasks.safety_prompts import load
from qwenops.tasks.verifiable import generate

CUT, LOST = {"finish": "length"}, {"finish": "lost"}
CONFIG = SynthesizeConfig(writer="llm", rejection_sampling=Sampling(temperature=1.0, n=4), heldout_share=0.0)


class Says:
    """An engine that answers every prompt with the same samples."""

    name = "says"

    def __init__(self, *samples: Sample) -> None:
        self.samples = samples

    def generate(self, prompts, sampling):
        return [[self.samples[place % len(self.samples)] for place in range(sampling.n)] for _ in prompts]


def test_rejection_sampling_imitates_no_cut_answer_and_rejects_it_as_it_was():
    row = generate("reverse", 1, 0, "train")[0]
    right = row.response
    engine = Says(
        Sample(right, **CUT), Sample("7", **CUT, token_ids=(9, 8)), Sample(right, token_ids=(1, 2)), Sample("", **LOST)
    )
    made = sample_and_reject([row], engine, CONFIG)
    assert [(r.response, r.token_ids, r.finish) for r in made.demonstrations] == [(right, (1, 2), "stop")]
    (pair,) = made.preferences
    assert (pair.chosen, pair.chosen_ids, pair.chosen_finish) == (right, (1, 2), "stop")
    assert (pair.rejected, pair.rejected_ids, pair.rejected_finish) == ("7", (9, 8), "length")
    assert (made.judged, made.accepted, dict(made.unfinished)) == (4, 1, {"cut": 2, "lost": 1})


def test_an_answer_that_is_only_ever_cut_teaches_nothing():
    row = generate("reverse", 1, 0, "train")[0]
    made = sample_and_reject([row], Says(Sample(row.response, **CUT)), CONFIG)
    assert (made.demonstrations, made.preferences, made.accepted) == ([], [], 0)


def test_programs_that_were_cut_are_no_candidates():
    task = CodeTask("t", "Write f", (), ("f() == 1",))
    engine = Says(Sample("```python\nx = 1\n```"), Sample("x = 2", **CUT), Sample("", **LOST))
    assert sampled_candidates(task, engine, 3) == (["x = 1"], {"cut": 1, "lost": 1})


def test_repurposing_takes_no_cut_instruction():
    passage = {"id": "d", "text": "A text.", "lang": "en", "license": "PD"}
    assert repurpose([passage], Says(Sample("Write it.")), CONFIG).accepted == 1
    made = repurpose([passage], Says(Sample("Write abou", **CUT)), CONFIG)
    assert (made.demonstrations, made.judged, dict(made.unfinished)) == ([], 1, {"cut": 1})


@pytest.mark.parametrize(
    ("aligned", "deviated", "pairs", "unfinished"),
    [
        (Sample("good"), Sample("bad", **CUT), 1, {}),
        (Sample("goo", **CUT), Sample("bad"), 0, {"cut": 1}),
        (Sample("good"), Sample("", **LOST), 0, {"lost": 1}),
        (Sample("", **LOST), Sample("", **LOST), 0, {"lost": 1}),
    ],
)
def test_the_constitution_follows_only_whole_answers(aligned, deviated, pairs, unfinished):
    made = apply_constitution(load("train")[:1], [(aligned, deviated)], "m", CONFIG)
    assert (len(made.preferences), len(made.demonstrations), dict(made.unfinished)) == (pairs, pairs, unfinished)
    assert [pair.rejected_finish for pair in made.preferences] == ["length"] * pairs


def test_principled_answers_of_a_model_keep_how_they_ended():
    pairs = llm_answers(load("train")[:2], Says(Sample("x", **CUT)))
    assert [sample.finish for pair in pairs for sample in pair] == ["length"] * 4


def test_evolution_keeps_no_cut_instruction():
    rows = [Conversation(id="p", messages=ask("Name a river"))]
    children, unfinished = llm_children(
        rows, Says(Sample("Name a river in", **CUT)), EvolveConfig().added_nodes, 0.7, 0
    )
    assert (children, unfinished) == ([], {"cut": 1})


def test_rank_shows_and_pairs_whole_answers_only(tmp_path, make_stage, monkeypatch):
    rows = generate("reverse", 8, 1, "train")
    write_conversations(tmp_path, [replace(row, messages=row.prompt) for row in rows], PROMPTS)
    engine = Says(Sample("12", token_ids=(1, 9)), Sample("half", **CUT), Sample("3", token_ids=(3, 9)))
    monkeypatch.setattr(rank, "open_stage_engine", lambda *_, **__: engine)
    stage = make_stage("rank")
    config = RankConfig(prompts=8, judge="machine", strategies=(Sampling(temperature=1.0, n=3),))
    rank.run(config, instructions=tmp_path, checkpoint=tmp_path, stage=stage)
    pairs = read_preferences(stage.out)
    assert {text for pair in pairs for text in (pair.chosen, pair.rejected)} == {"12", "3"}
    assert {ids for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)} == {(1, 9), (3, 9)}
    assert (stage.metrics["answers.all"], stage.metrics["answers.cut"]) == (24, 8)


def test_the_synthesize_stage_counts_what_its_model_did_not_end(tmp_path, checkpoint, documents, make_stage):
    """An untrained model rarely ends within four tokens."""
    tasks = [replace(row, messages=row.prompt) for row in generate("reverse", 6, 1, "train")]
    write_conversations(tmp_path, tasks, PROMPTS)
    stage = make_stage("synthesize")
    config = CONFIG.model_copy(
        update={
            "strategies": ("rejection_sampling",),
            "rejection_sampling": Sampling(temperature=1.0, n=5, max_new_tokens=4),
        }
    )
    synthesize(config, instructions=tmp_path, checkpoint=checkpoint, documents=documents, stage=stage)
    assert stage.metrics["answers.cut"] == stage.counts["dropped"]["cut"] > 15
    assert read_conversations(stage.out) == []
