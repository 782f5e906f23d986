"""The doors of evaluation sets and of MLflow's server, in one `qwenops run`.

Official files are scored, and another layout is refused by name; the model is registered on the server and loads there.
"""

import csv
import gzip
import io
import json
import shutil
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from tests.dags.conftest import qwenops, record_of
from tests.dags.doors.conftest import output, settings, stages_of
from tests.platform.servers import mlflow_server

DATA = Path(__file__).parents[3].parent / "shared" / "data"
LIMIT = 3
MODEL = "qwenops-smoke-chat"


def rows(*cells):
    stream = io.StringIO()
    csv.writer(stream).writerows(cells)
    return stream.getvalue()


def lines(*objects):
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects)


def exam(question, letter="B"):
    return (question, "a bolt", "a lamp", "a rope", "a sail", letter)


# Written anew in the layouts in which the sets are published: 2 items of mmlu's first subject and 1 of its second, 4 of
# gsm8k of which the limit takes 3, 1 of humaneval, and 2 of bbh.
OWN = {
    "mmlu/test/astronomy_test.csv": rows(exam("What lights the water?"), exam('What, "then", is\nlit?', "A")),
    "mmlu/test/virology_test.csv": rows(exam("What is pulled?", "C")),
    "mmlu/dev/astronomy_dev.csv": rows(exam("What is hoisted?", "D")),
    "mmlu/dev/virology_dev.csv": rows(exam("What is tied?", "C")),
    "gsm8k/test.jsonl": lines(
        *(
            {
                "question": f"A keeper lights {n} lamps and then 2 more. How many?",
                "answer": f"{n}+2=<<{n}+2={n + 2}>>{n + 2} lamps.\n#### {n + 2}",
            }
            for n in range(4)
        )
    ),
    "gsm8k/train.jsonl": lines({"question": "One and one lamps?", "answer": "1+1=<<1+1=2>>2\n#### 2"}),
    "humaneval/HumanEval.jsonl.gz": lines(
        {
            "task_id": "HumanEval/0",
            "prompt": 'def lamps(count):\n    """One more lamp than count."""\n',
            "entry_point": "lamps",
            "canonical_solution": "    return count + 1\n",
            "test": "def check(candidate):\n    assert candidate(1) == 2\n",
        }
    ),
    "bbh/navigate.json": json.dumps(
        {"canary": "", "examples": [{"input": f"Turn {n} times. Back?", "target": "Yes"} for n in range(2)]}
    ),
    "bbh/cot-prompts/navigate.txt": "canary\n-----\nTurn.\n\nQ: Turn? A: Yes",
    # In other layouts than the official ones.
    "ceval/dev/law_dev.csv": rows(
        ("id", "question", "A", "B", "C", "D", "answer", "explanation"), (0, "q", "w", "x", "y", "z", "A", "")
    ),
    "ceval/val/law_val.csv": rows(("id", "question", "A", "B", "C", "D"), (0, "q", "w", "x", "y", "z")),
    "math/math.jsonl": lines({"question": "x?", "answer": "2"}),
    "mbpp/mbpp.parquet": "PAR1",
}
ITEMS = {"mmlu": 3, "gsm8k": 3, "humaneval": 1, "bbh": 2}
REFUSED = ("ceval", "math", "mbpp")
MADE = {"benchmarks", "contamination", "export", "register", "report"}


def fill(folder, files):
    for place, text in files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """MLflow's server, on which somebody has a run open: its client, its address and that run's id."""
    folder = tmp_path_factory.mktemp("server")
    with mlflow_server(f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts")) as address:
        client = MlflowClient(address)
        yield client, address, client.create_run(client.create_experiment("nightly")).info.run_id


@pytest.fixture(scope="module")
def asked(started, server, tmp_path_factory):
    """Folder of a run whose benchmarks read a user's folder, and how many items each set must have.

    It exports and registers on the server, below the run that is open there.
    """
    folder, items = tmp_path_factory.mktemp("sets"), dict(ITEMS)
    fill(folder, OWN)
    if (DATA / "cmmlu").exists():
        shutil.copytree(DATA / "cmmlu", folder / "cmmlu")
        items["cmmlu"] = LIMIT
    if (DATA / "gsm8k").exists():  # the published files in place of ours; the limit is the same
        shutil.copytree(DATA / "gsm8k", folder / "gsm8k", dirs_exist_ok=True)
    options = settings(
        benchmarks__folder=str(folder),
        benchmarks__tasks=[*items, *REFUSED],
        benchmarks__limit_items=LIMIT,
        benchmarks__max_shots=1,
        benchmarks__max_new_tokens=4,
    )
    _, address, mine = server
    environment = {"MLFLOW_TRACKING_URI": address, "MLFLOW_RUN_ID": mine}
    done = qwenops("run", "smoke", "--out", started, "--from", "export", *options, **environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert {name for name, stage in stages_of(started).items() if stage["status"] != "skipped"} == MADE
    return started, items


def test_every_item_up_to_the_limit_is_asked_of_every_model_and_scored_or_too_long(asked):
    out, items = asked
    figures = stages_of(out)["benchmarks"]["metrics"]
    for model in ("", ".base", ".moe"):
        found = {name: figures[f"{name}.items{model}"] + figures[f"{name}.too_long{model}"] for name in items}
        assert found == items
    for name in ITEMS:
        metric = {"mmlu": "accuracy", "humaneval": "pass_at_1"}.get(name, "exact_match")
        if figures[f"{name}.items"]:
            assert 0 <= figures[f"{name}.{metric}"] <= 1
    assert figures["mmlu.items"] == 3 and figures["humaneval.items"] == 1
    kept = [json.loads(line) for line in (output(out, "benchmarks") / "items.jsonl").read_text().splitlines()]
    assert len(kept) == 3 * sum(items.values())
    assert any("What lights the water?" in json.dumps(row) for row in kept)


def test_set_in_another_layout_is_left_out_by_name_with_what_was_found(asked):
    out, _ = asked
    stage = stages_of(out)["benchmarks"]
    assert stage["metrics"]["tasks.missing"] == len(REFUSED)
    said = {"ceval": "KeyError: 'answer'", "math": "KeyError: 'type'", "mbpp": "1 other entries"}
    for name in REFUSED:
        assert [sentence for sentence in stage["warnings"] if said[name] in sentence and f"{name} was" in sentence]
        assert [sentence for sentence in stage["warnings"] if sentence.startswith(f"{name} was left out")], name
        assert not [figure for figure in stage["metrics"] if figure.startswith(f"{name}.")]


def test_run_on_a_server_is_recorded_below_the_run_that_is_open_there_and_leaves_it_open(asked, server):
    client, _, mine = server
    record = record_of(asked[0])
    run = client.get_run(mine)
    assert run.info.status == "RUNNING"
    assert run.data.tags["qwenops.recipe"] == "smoke" and run.data.params["pretrain.training.steps"] == "40"
    assert run.data.metrics["export/export.max_logit_difference"] <= 1e-4
    assert run.data.metrics["sft_seed/pass_rate"] == record["stages"]["sft_seed"]["metrics"]["pass_rate"]
    below = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{mine}'")
    assert {one.info.run_name: one.info.status for one in below} == dict.fromkeys(MADE, "FINISHED")
    assert {one.path for one in client.list_artifacts(mine)} >= {"run.json", "recipe.json", "report.html"}


def test_model_registered_on_a_server_loads_from_there_and_answers(asked, server, monkeypatch):
    client, address, mine = server
    record = record_of(asked[0])
    alias, verdict = ("champion", "passed") if record["model"]["gate"]["passed"] else ("candidate", "failed")
    assert (record["model"]["mlflow_uri"], record["model"]["alias"]) == (f"models:/{MODEL}/1", alias)
    version = client.get_model_version_by_alias(MODEL, alias)
    assert (version.run_id, version.tags["gate"]) == (mine, verdict)
    assert version.source.startswith("mlflow-artifacts:")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    question = {"messages": [{"role": "user", "content": "Reverse: 38175"}], "max_tokens": 4}
    (answer,) = mlflow.pyfunc.load_model(f"models:/{MODEL}@{alias}").predict(question)
    assert answer["choices"][0]["message"]["role"] == "assistant"
