"""The synthesis strategies on scripted answers, on real programs in the sandbox, and the stage as a whole."""

import ast
from dataclasses import replace

import pytest

from qwenops.contracts.conversation import PROMPTS, Conversation, answer, ask, read_conversations, write_conversations
from qwenops.contracts.preference import read_preferences
from qwenops.generation.engine import Sample, Sampling
from qwenops.instructions.synthesize.config import SynthesizeConfig
from qwenops.instructions.synthesize.constitution import apply_constitution, load_principles, written_answers
from qwenops.instructions.synthesize.execution import (
    CodeTask,
    judge_programs,
    load_code_tasks,
    run_tests,
    written_candidates,
)
from qwenops.instructions.synthesize.following import (
    Checks,
    cross_validate,
    follow,
    run_functions,
    transforms,
    written_checks,
)
from qwenops.instructions.synthesize.mutation import mutate
from qwenops.instructions.synthesize.rejection import sample_and_reject
from qwenops.instructions.synthesize.repurposing import describe, find_passages, repurpose
from qwenops.instructions.synthesize.run import run
from qwenops.platform.sandbox.judging import Sandbox
from qwenops.tasks.constraints import at_most_words
from qwenops.tasks.safety_prompts import load
from qwenops.tasks.verifiable import generate, verify

CONFIG = SynthesizeConfig(
    writer="written",
    rejection_prompts=8,
    rejection_sampling=Sampling(temperature=1.0, n=2, max_new_tokens=6),
    max_right_per_prompt=1,
    max_pairs_per_prompt=2,
    programs_per_task=3,
    following_instructions=2,
    repurposed_documents=4,
    max_passage_characters=400,
    constitution_prompts=30,
    heldout_share=0.0,
)


def judge(programs):
    return Sandbox.open("bubblewrap", 5.0).judge_all(programs)


class Scripted:
    """A stub model: answers prompts from a list."""

    name = "stub"

    def __init__(self, *answers: list[str]) -> None:
        self._answers = [[Sample(text) for text in group] for group in answers]

    def generate(self, prompts, sampling):
        return self._answers


def test_rejection_sampling_keeps_what_is_right_and_pairs_it_with_what_is_wrong():
    rows = generate("reverse", 3, 0, "train")
    right = [row.response for row in rows]
    made = sample_and_reject(rows, Scripted([right[0], "1", right[0], "2", "3"], ["4"] * 5, [right[2]] * 5), CONFIG)
    assert [row.response for row in made.demonstrations] == [right[0], right[2]]  # none for the question nobody solved
    assert [(pair.chosen, pair.rejected) for pair in made.preferences] == [(right[0], "1"), (right[0], "2")]
    assert made.share == 7 / 15
    assert made.demonstrations[0].provenance["sampling"] == "T1/p1"


def test_later_rounds_ask_only_what_nobody_has_solved():
    rows = generate("reverse", 2, 0, "train")
    right = [row.response for row in rows]

    class Rounds:
        name = "stub"

        def __init__(self):
            self.asked = []

        def generate(self, prompts, sampling):
            self.asked.append((len(prompts), sampling.seed))
            return [[Sample(right[0])], [Sample("1")]] if len(prompts) == 2 else [[Sample(right[1])]]

    engine = Rounds()
    made = sample_and_reject(rows, engine, CONFIG.model_copy(update={"rejection_rounds": 3}))
    assert engine.asked == [(2, 0), (1, 1)]
    assert [row.response for row in made.demonstrations] == right


def test_programs_that_pass_every_valid_test_teach_and_the_wrong_test_is_found():
    tests = ("flip('ab') == 'ba'", "flip('ab') == 'ab'")
    task = CodeTask("flip", "flip s", ("def flip(s):\n    return s[::-1]",), tests)
    candidates = [task.solutions[0], "def flip(s):\n    return s", "while True: pass", "import os; os._exit(0)"]
    made = judge_programs(task, candidates, "written", judge, CONFIG)
    assert [row.response for row in made.demonstrations] == [task.solutions[0]]
    assert {pair.rejected for pair in made.preferences} <= set(candidates[1:])
    assert made.demonstrations[0].provenance["valid_tests"] == 1


def test_without_a_reference_the_majority_decides_which_tests_are_valid():
    task = CodeTask("double", "double n", (), ("double(2) == 4", "double(2) == 5"))
    programs = ["def double(n):\n    return n * 2", "def double(n):\n    return n + n", "def double(n):\n    return n"]
    made = judge_programs(task, programs, "stub", judge, CONFIG)
    assert {row.response for row in made.demonstrations} == set(programs[:2])


def test_a_program_cannot_talk_its_way_through_the_tests():
    talker = "import os\nprint('[true]')\nos._exit(0)"
    assert run_tests([talker, "x = 2"], ["x == 1"], judge) == [(False,), (False,)]
    assert run_tests(["x = 1"], ["x == 1", "x == 2", "1/0"], judge) == [(True, False, False)]
    liar = "class Any:\n    def __eq__(self, other): return True\ndef f(n): return Any()"
    assert run_tests([liar], ["f(1) == 2", "f(1)"], judge) == [(False, False)]


def test_a_check_cannot_change_what_another_check_says():
    vandal = "import builtins\nbuiltins.len = lambda x: 0\ndef evaluate(response):\n    raise SystemExit(0)"
    honest = "def evaluate(response):\n    return len(response) == 2"
    assert run_functions([vandal, honest, "def evaluate("], ["ab", "abc"], judge) == [
        [None, None],
        [True, False],
        [None, None],
    ]


def test_every_written_task_has_a_right_and_a_wrong_candidate():
    for task in load_code_tasks():
        assert len(written_candidates(task, 6)) >= 2, task.name


def test_mutants_differ_from_the_program_and_parse():
    source = "def f(n):\n    return max(n + 1, 0) if n > 2 else n * 3"
    mutants = mutate(source)
    assert len(mutants) >= 5
    assert ast.unparse(ast.parse(source)) not in mutants
    for mutant in mutants:
        ast.parse(mutant)


def test_cross_validation_drops_wrong_networked_and_broken_functions_and_wrong_cases():
    good = "def evaluate(response):\n    return len(response.split()) <= 3\n"
    functions = (
        good,
        good.replace("<= 3", "< 4"),
        "def evaluate(response):\n    return True\n",
        "def evaluate(",
        "import requests\ndef evaluate(response):\n    return False\n",
    )
    cases = (("a b", True), ("a b c d", False), ("a b c d e", False), ("a", True), ("one two", False))
    checks = cross_validate(Checks(functions, cases), 0.5, judge)
    assert set(checks.functions) == set(functions[:2])
    assert ("one two", False) not in checks.cases


def test_checks_accept_the_response_that_follows_and_reject_the_one_that_does_not():
    row = Conversation(id="r", messages=answer(ask("Continue: it."), "The river is wide."), source="documents")
    constraint = at_most_words(4)
    checks = cross_validate(written_checks(constraint, row.response), 0.5, judge)
    assert checks.functions
    responses = [row.response, *transforms(row.response)]
    made = follow(row, checks, constraint, responses, "texts", judge, CONFIG)
    assert made.demonstrations[0].response == row.response
    assert constraint.text in made.demonstrations[0].instruction
    assert made.preferences
    assert not any(constraint.check(pair.rejected) for pair in made.preferences)


def test_repurposing_leaves_the_authors_text_untouched():
    passage = "The river was wide and slow in the summer. The boat of the miller lay in the reeds by the river."
    document = {"id": "d", "text": f"Title\n\n{passage}\n\n", "lang": "en", "license": "PD"}
    passages = find_passages([document], 5, 400)
    made = repurpose(passages, None, CONFIG)
    assert [row.response for row in made.demonstrations] == [passage] * 3
    assert len({row.instruction for row in made.demonstrations}) == 3
    assert describe("123", "en") == ()


def test_the_constitution_refuses_harm_helps_otherwise_and_never_teaches_the_deviation():
    prompts = load("train")
    made = apply_constitution(prompts, written_answers(prompts), "written", CONFIG)
    deviated = {prompt.deviated for prompt in prompts if prompt.is_harmful}
    assert not deviated & {row.response for row in made.demonstrations}
    assert all(pair.provenance["access"].startswith("restricted") for pair in made.preferences)
    assert {pair.provenance["principle"] for pair in made.preferences} == {p.id for p in load_principles().values()}
    assert not {p.text for p in load("heldout")} & {row.instruction for row in made.demonstrations}


@pytest.fixture
def instructions(tmp_path):
    tasks = [replace(row, messages=row.prompt) for row in generate("reverse", 12, 1, "train")]
    write_conversations(tmp_path, tasks, PROMPTS)
    talks = [
        Conversation(id=f"c{i}", messages=answer(ask(f"Continue: part {i}."), "The river is wide."), source="documents")
        for i in range(3)
    ]
    write_conversations(tmp_path, talks)
    return tmp_path


def test_the_stage_runs_every_strategy_and_each_row_says_where_it_came_from(
    instructions, checkpoint, documents, make_stage
):
    stage = make_stage("synthesize")
    run(CONFIG, instructions=instructions, checkpoint=checkpoint, documents=documents, stage=stage)
    rows, pairs = read_conversations(stage.out), read_preferences(stage.out)
    assert {row.strategy for row in rows} >= {"code_execution", "instruction_following", "repurposing", "constitution"}
    assert all(row.provenance and row.is_answered for row in rows)
    assert all(pair.provenance and pair.chosen != pair.rejected for pair in pairs)
    assert all(verify(row.verifier, row.response) for row in rows if row.verifier)
    assert (stage.out / "gate" / "preferences.json").exists()
    assert set(stage.metrics) >= {f"accepted.{name}" for name in CONFIG.strategies}
