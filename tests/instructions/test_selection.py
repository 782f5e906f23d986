"""Selection by four criteria, and evolution of what was selected."""

import random
from dataclasses import replace

from qwenops.contracts.conversation import (
    PROMPTS,
    Conversation,
    answer,
    ask,
    read_conversations,
    write_conversations,
)
from qwenops.generation.engine import Sample
from qwenops.instructions.evolve.config import EvolveConfig
from qwenops.instructions.evolve.evolver import evolve_answered, evolve_task, find_flaw, llm_children, rouge_l
from qwenops.instructions.evolve.run import run as run_evolve
from qwenops.instructions.select.config import Quota, SelectConfig
from qwenops.instructions.select.run import run as run_select
from qwenops.instructions.select.sampling import mean_complexity, select_diverse, select_random, tag_coverage
from qwenops.instructions.select.scores import find_faults, score_instructions
from qwenops.tasks.verifiable import generate, verify

CONFIG = SelectConfig(size=30)


def make_pool(size: int = 300) -> list[Conversation]:
    rng = random.Random(0)
    tags = [f"t{i}" for i in range(60)]
    return [
        Conversation(
            id=f"{i:04}",
            messages=ask(f"Question number {i}?"),
            source="a" if i % 3 else "b",
            tags=tuple(rng.sample(tags, min(1 + int(rng.expovariate(0.7)), 8))),
        )
        for i in range(size)
    ]


def test_diverse_selection_covers_more_and_is_more_complex_than_random():
    pool = make_pool()
    chosen = select_diverse(pool, score_instructions(pool, CONFIG), 30)
    control = [select_random(pool, 30, seed) for seed in range(5)]
    assert len(chosen) == 30
    assert all(tag_coverage(chosen, pool) > tag_coverage(rows, pool) for rows in control)
    assert all(mean_complexity(chosen) > mean_complexity(rows) for rows in control)


def test_selection_does_not_depend_on_the_order_of_the_pool():
    pool = make_pool()
    mixed = random.Random(1).sample(pool, len(pool))
    one, other = (select_diverse(rows, score_instructions(rows, CONFIG), 30) for rows in (pool, mixed))
    assert one == other


def test_rows_without_tags_are_taken_last_and_never_loop():
    pool = [replace(row, tags=()) for row in make_pool(5)]
    assert len(select_diverse(pool, score_instructions(pool, CONFIG), 3)) == 3


def test_incomplete_instructions_are_found():
    assert find_faults("Summarise the attached file.", CONFIG) == ("dangling_reference",)
    assert find_faults("Write to {name}", CONFIG) == ("placeholder",)
    assert find_faults("Compare the two,", CONFIG) == ("unfinished",)
    assert find_faults("Reverse: 381752", CONFIG) == ()


def test_the_select_stage_respects_quotas_and_leaves_heldout_rows_alone(tmp_path, make_stage):
    row = make_pool(1)[0]
    bad = replace(row, id="bad", messages=ask("Fill in [your name] please"))
    write_conversations(tmp_path, [*make_pool(), replace(row, id="held", split="heldout"), bad])
    stage = make_stage("select")
    run_select(SelectConfig(size=50, quotas=(Quota(source="b", rows=10),)), instructions=tmp_path, stage=stage)
    rows = read_conversations(stage.out)
    assert [row.id for row in rows if row.split == "heldout"] == ["held"]
    assert sum(row.source == "b" and row.split == "train" for row in rows) == 10
    assert "bad" not in {row.id for row in rows}
    assert stage.metrics["coverage.selected"] >= stage.metrics["coverage.random"]


def test_an_evolved_task_has_one_step_more_and_its_own_right_answer():
    parent = generate("reverse", 1, 3, "train")[0]
    child = evolve_task(parent, ("drop_first",), random.Random(0))
    assert child is not None
    assert child.verifier["steps"] == ["reverse", "drop_first"]
    assert verify(child.verifier, child.response)
    assert child.parent_id == parent.id
    assert len(child.tags) > len(parent.tags)


def test_an_evolved_open_instruction_keeps_an_answer_that_meets_the_constraint():
    parent = Conversation(id="p", messages=answer(ask("Say something."), "The river is wide."), source="documents")
    child = evolve_answered(parent, random.Random(0))
    assert child is not None
    assert child.response == parent.response
    assert len(child.instruction) > len(parent.instruction)
    assert find_flaw(child, parent, frozenset(), 0.9) is None


def test_copies_leaks_and_heldout_prompts_are_dropped():
    parent = Conversation(id="p", messages=ask("Name a river in Spain"))

    heldout = frozenset({"Name a river in Spain, and its mouth"})

    def flaw(text: str) -> str | None:
        return find_flaw(replace(parent, messages=ask(text)), parent, heldout, 0.9)

    assert flaw("Name a river in Spain") == "near_parent"
    assert flaw("River?") == "not_longer"
    assert flaw("The rewritten version: Name a long river in Spain") == "prompt_leak"
    assert flaw("Name a river in Spain, and its mouth") == "heldout"
    assert rouge_l("a b c", "a c") == 0.8


def test_a_language_model_can_evolve_and_says_so():
    class Scripted:
        name = "stub"

        def generate(self, prompts, sampling):
            return [[Sample("Name a river in Spain that is longer than 300 km.")] for _ in prompts]

    (child,), _ = llm_children([Conversation(id="p", messages=ask("Name a river"))], Scripted(), (3,), 0.7, 0)
    assert not child.is_answered
    assert child.provenance["model"] == "stub"


def test_half_of_the_verifiable_tasks_are_left_to_sample_on(tmp_path, make_stage):
    write_conversations(tmp_path, generate("reverse", 60, 1, "train"))
    stage = make_stage("evolve")
    run_evolve(EvolveConfig(evolver="rules", evolved_share=0.0), instructions=tmp_path, stage=stage)
    train, prompts = read_conversations(stage.out, "train"), read_conversations(stage.out, name=PROMPTS)
    assert (len(train), len(prompts)) == (30, 30)


def test_the_evolve_stage_parts_demonstrations_prompts_and_heldout_rows(tmp_path, make_stage):
    rows = [*generate("reverse", 60, 1, "train"), *generate("sort", 60, 1, "train")]
    write_conversations(tmp_path, [*rows, *generate("sort", 10, 1, "heldout")])
    stage = make_stage("evolve")
    config = EvolveConfig(evolver="rules", verifiable_demonstrations=40, evolved_share=0.5)
    run_evolve(config, instructions=tmp_path, stage=stage)
    train, prompts = read_conversations(stage.out, "train"), read_conversations(stage.out, name=PROMPTS)
    heldout = read_conversations(stage.out, "heldout")
    assert len(train) == 40
    assert all(row.is_answered for row in train)
    assert not any(row.is_answered for row in prompts)
    assert {row.split for row in prompts} == {"train"}
    assert len(heldout) >= 10
    assert not {row.instruction for row in heldout} & {row.instruction for row in [*train, *prompts]}
    assert any(row.strategy == "evolved" for row in [*train, *prompts])
    assert stage.metrics["complexity.evolved"] > stage.metrics["complexity.before"]
