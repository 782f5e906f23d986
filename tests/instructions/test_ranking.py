"""Ranking: pairs from ranks, people's rankings with shuffled positions, the stage with a machine judge."""

import json
import string
from dataclasses import replace

import pytest

from qwenops.contracts.conversation import PROMPTS, Conversation, read_conversations, write_conversations
from qwenops.contracts.preference import read_preferences
from qwenops.errors import ContractError, RecipeError
from qwenops.generation.engine import Sampling
from qwenops.instructions.judging import judge, judge_form, second_judge
from qwenops.instructions.rank.annotation import TASKS, read_rankings, write_tasks
from qwenops.instructions.rank.config import RankConfig
from qwenops.instructions.rank.ranking import agreement, mean_ranks, pairs_of_ranking, ranks_from_grades
from qwenops.instructions.rank.run import run
from qwenops.tasks.verifiable import generate

CONFIG = RankConfig(
    prompts=20,
    judge="machine",
    # An untrained model ends about every second answer within so many tokens.
    strategies=(Sampling(max_new_tokens=100), Sampling(temperature=1.0, n=12, max_new_tokens=100, seed=1)),
)


def answered(task):
    """What a ranking repeats of its task."""
    return {name: task[name] for name in ("task", "annotator", "texts")}


def write_prompts(folder, rows):
    write_conversations(folder, [Conversation(id=r.id, messages=r.prompt, verifier=r.verifier) for r in rows], PROMPTS)


def test_a_ranking_gives_exactly_the_pairs_it_orders():
    assert set(pairs_of_ranking([1, 2, 3], "all")) == {(0, 1), (0, 2), (1, 2)}
    assert set(pairs_of_ranking([2, 1, 1], "all")) == {(1, 0), (2, 0)}  # a tie makes no pair
    assert pairs_of_ranking([1, 1], "all") == []
    assert set(pairs_of_ranking([1, 2, 3], "best_vs_rest")) == {(0, 1), (0, 2)}
    assert ranks_from_grades([0.5, 1.0, 0.5]) == [2, 1, 2]


def test_agreement_is_one_for_equal_and_minus_one_for_opposite_rankings():
    assert agreement([[1, 2, 3]], [[1, 2, 3]]) == pytest.approx(1)
    assert agreement([[1, 2, 3]], [[3, 2, 1]]) == pytest.approx(-1)
    assert agreement([[1, 1, 1]], [[3, 2, 1]]) is None
    assert mean_ranks([[1, 2], [2, 1]]) == [1.5, 1.5]


def test_the_machine_judge_puts_right_first_and_near_before_far():
    row = generate("reverse", 1, 0, "train", min_digits=6)[0]
    right = row.response
    near, far = right[:-1] + ("0" if right[-1] != "0" else "1"), "x"
    assert judge(row, right) == 1.0 > judge(row, near) > judge(row, far)
    assert second_judge(row, right) == 1.0 > second_judge(row, near) > second_judge(row, far)
    assert judge_form("Say something about rivers", "The river is wide.") == 1.0
    assert judge_form("Say something about rivers", "") < judge_form("Say something about rivers", "no no no no")


def test_people_see_shuffled_responses_and_their_rankings_are_unshuffled(tmp_path):
    texts = {f"t{i}": ["best", "middle", "worst"] for i in range(8)}
    assert write_tasks(dict.fromkeys(texts, "question"), texts, 2, 5, tmp_path) == 16
    tasks = [json.loads(line) for line in (tmp_path / TASKS).read_text().splitlines()]
    assert len({tuple(task["responses"].values()) for task in tasks}) > 2
    order = ["best", "middle", "worst"]
    with (tmp_path / "ranked.jsonl").open("w") as stream:
        for task in tasks:
            letters = sorted(task["responses"], key=lambda letter: order.index(task["responses"][letter]))
            ranking = {"ranking": [[letter] for letter in letters], "acceptable": letters[:1]}
            stream.write(json.dumps(answered(task) | ranking) + "\n")
    judged = read_rankings(tmp_path / "ranked.jsonl", dict.fromkeys(texts, "question"), texts, 5)
    assert all(view.ranks == (1, 2, 3) for people in judged.values() for view in people.values())
    assert all(view.acceptable == (True, False, False) for people in judged.values() for view in people.values())


RESPONSES = {"t": ["one", "two"]}


def export(tmp_path, prompt="question", responses=RESPONSES, seed=0):
    write_tasks({"t": prompt}, responses, 1, seed, tmp_path)
    return json.loads((tmp_path / TASKS).read_text())


def read(tmp_path, lines, responses=RESPONSES):
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_rankings(tmp_path / "r.jsonl", {"t": "question"}, responses, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": "other", "ranking": [["A", "B"]]}, "a task of another run"),
        ({"task": ["t"], "ranking": [["A", "B"]]}, "a task of another run"),
        ({"ranking": [["A"]]}, "does not rank every response once"),
    ],
)
def test_rankings_of_other_tasks_or_with_gaps_are_refused(tmp_path, change, says):
    with pytest.raises(ContractError, match=says):
        read(tmp_path, [answered(export(tmp_path)) | change])


@pytest.mark.parametrize(
    "drawn_before",
    [
        {"responses": {"t": ["one", "another"]}},
        {"responses": {"t": ["two", "one"]}},
        {"prompt": "another question"},
        {"responses": {"t": ["one", "two", "three"]}},
    ],
    ids=["another response", "another order", "another prompt", "another number"],
)
def test_rankings_of_responses_that_were_drawn_again_since_are_refused(tmp_path, drawn_before):
    old = answered(export(tmp_path, **drawn_before)) | {"ranking": [["A"], ["B"]]}
    with pytest.raises(ContractError, match="ranks other texts"):
        read(tmp_path, [old])
    assert read(tmp_path, [answered(export(tmp_path)) | {"ranking": [["A"], ["B"]]}])


def test_rankings_without_a_digest_and_files_without_a_ranking_are_refused(tmp_path):
    line = answered(export(tmp_path)) | {"ranking": [["A"], ["B"]]}
    del line["texts"]
    with pytest.raises(ContractError, match="ranks other texts"):
        read(tmp_path, [line])
    with pytest.raises(ContractError, match="ranks nothing"):
        read(tmp_path, [])


def test_the_stage_writes_pairs_with_provenance_and_no_unaccepted_demonstration(tmp_path, checkpoint, make_stage):
    open_rows = [replace(row, verifier=None) for row in generate("copy", 10, 1, "train")]
    write_prompts(tmp_path, [*generate("reverse", 10, 1, "train"), *open_rows])
    stage = make_stage("rank")
    run(CONFIG, instructions=tmp_path, checkpoint=checkpoint, stage=stage)
    pairs = read_preferences(stage.out)
    assert pairs
    assert all(pair.judge.startswith("machine:") and pair.provenance["model"] for pair in pairs)
    assert {pair.split for pair in pairs} <= {"train", "heldout"}
    # An untrained model answers no task right, so no task has a demonstration, whatever is ranked.
    assert not [row for row in read_conversations(stage.out) if row.verifier]


def test_people_rank_what_the_stage_exports(tmp_path, checkpoint, make_stage):
    write_prompts(tmp_path, generate("reverse", 6, 1, "train"))
    first = make_stage("rank")
    people = CONFIG.model_copy(update={"judge": "people", "heldout_share": 0.0})
    with pytest.raises(RecipeError, match="the run pauses: 12 annotation tasks wait for people") as paused:
        run(people, instructions=tmp_path, checkpoint=checkpoint, stage=first)
    assert "--set rank.annotations=FILE" in paused.value.action
    assert str(first.scratch / TASKS) in paused.value.message
    tasks = [json.loads(line) for line in (first.scratch / TASKS).read_text().splitlines()]
    with (tmp_path / "ranked.jsonl").open("w") as stream:
        for task in tasks:
            letters = sorted(task["responses"], key=lambda letter: task["responses"][letter])
            assert letters == sorted(letters, key=lambda letter: task["responses"][letter])
            ranking = {"ranking": [[letter] for letter in letters], "acceptable": letters[:1]}
            stream.write(json.dumps(answered(task) | ranking) + "\n")
    second = make_stage("rank_again")
    named = people.model_copy(update={"annotations": str(tmp_path / "ranked.jsonl")})
    run(named, instructions=tmp_path, checkpoint=checkpoint, stage=second)
    assert all(pair.chosen < pair.rejected and pair.judge == "person:1+2" for pair in read_preferences(second.out))
    assert len(read_conversations(second.out)) == len({task["task"] for task in tasks})
    assert second.metrics["agreement.tau"] == pytest.approx(1)
    assert string.ascii_uppercase[0] in tasks[0]["responses"]
