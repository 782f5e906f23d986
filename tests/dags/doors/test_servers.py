"""The door of servers: MLflow's own server and an OpenAI-compatible one, through `qwenops run`."""

import json
import shutil
import threading

import mlflow
import pytest
from mlflow import MlflowClient
from tests.dags.conftest import qwenops
from tests.dags.doors.conftest import output, settings, stages_of
from tests.generation.openai_server import serving
from tests.platform.servers import mlflow_server

MODEL = "qwenops-smoke-chat"
KEY = "key-of-the-user-2718"  # pragma: allowlist secret


@pytest.fixture(scope="module")
def tracked(started, tmp_path_factory):
    """A run that exports and registers on a server, below a run that somebody has open there: (client, id, record)."""
    folder = tmp_path_factory.mktemp("server")
    with mlflow_server(f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts")) as address:
        client = MlflowClient(address)
        mine = client.create_run(client.create_experiment("nightly")).info.run_id
        environment = {"MLFLOW_TRACKING_URI": address, "MLFLOW_RUN_ID": mine}
        done = qwenops("run", "smoke", "--out", started, "--from", "export", **environment)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        yield client, address, mine, json.loads((started / "run.json").read_text())


def test_run_on_a_server_is_recorded_below_the_run_that_is_open_there_and_leaves_it_open(tracked):
    client, _, mine, record = tracked
    run = client.get_run(mine)
    assert run.info.status == "RUNNING"
    assert run.data.tags["qwenops.recipe"] == "smoke" and run.data.params["pretrain.training.steps"] == "40"
    assert run.data.metrics["export/export.max_logit_difference"] <= 1e-4
    assert run.data.metrics["sft_seed/pass_rate"] == record["stages"]["sft_seed"]["metrics"]["pass_rate"]
    below = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{mine}'")
    assert {one.info.run_name: one.info.status for one in below} == dict.fromkeys(
        ("export", "register", "report"), "FINISHED"
    )
    assert {one.path for one in client.list_artifacts(mine)} >= {"run.json", "recipe.json", "report.html"}


def test_model_registered_on_a_server_loads_from_there_and_answers(tracked, monkeypatch):
    client, address, mine, record = tracked
    alias, verdict = ("champion", "passed") if record["model"]["gate"]["passed"] else ("candidate", "failed")
    assert (record["model"]["mlflow_uri"], record["model"]["alias"]) == (f"models:/{MODEL}/1", alias)
    version = client.get_model_version_by_alias(MODEL, alias)
    assert (version.run_id, version.tags["gate"]) == (mine, verdict)
    assert version.source.startswith("mlflow-artifacts:")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    question = {"messages": [{"role": "user", "content": "Reverse: 38175"}], "max_tokens": 4}
    (answer,) = mlflow.pyfunc.load_model(f"models:/{MODEL}@{alias}").predict(question)
    assert answer["choices"][0]["message"]["role"] == "assistant"


@pytest.fixture(scope="module")
def tagged(started, tmp_path_factory):
    """A run whose instructions a model behind a server tags: it loses one, talks about another, and tags the rest."""
    out = tmp_path_factory.mktemp("runs") / "tagged"
    shutil.copytree(started, out, symlinks=True)
    lock, seen = threading.Lock(), []

    def answer(prompt):
        with lock:
            seen.append(prompt)
        instruction = prompt.partition("[begin]\n")[2].partition("\n[end]")[0]
        tags = [{"tag": "String work" if "everse" in instruction else "Other", "explanation": "x"}]
        said = json.dumps({"choices": [{"message": {"content": json.dumps(tags)}, "finish_reason": "stop"}]})
        first = list(dict.fromkeys(seen))
        if prompt == first[0]:
            return 500, {}, b"no"
        if len(first) > 1 and prompt == first[1]:
            said = json.dumps({"choices": [{"message": {"content": "As a model I would rather not."}}]})
        return 200, {}, said.encode()

    with serving() as server:
        server.fault = answer
        engine = {
            "kind": "endpoint",
            "url": server.url,
            "model": "tagger-72b",
            "api": "chat",
            "api_key_variable": "TAGGER_KEY",  # pragma: allowlist secret
            "max_retries": 1,
        }
        options = settings(ontology__tagger="llm", ontology__engine=engine)
        done = qwenops("run", "smoke", "--out", out, "--until", "ontology", *options, TAGGER_KEY=KEY)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        yield out, server, options, done


def test_model_behind_a_server_tags_every_instruction_and_what_it_loses_is_counted(tagged):
    out, server, _, _ = tagged
    stage = stages_of(out)["ontology"]
    asked = {request["messages"][-1]["content"] for request in server.requests}
    assert len(asked) == stage["counts"]["kept"] == stage["metrics"]["answers.all"]
    assert (stage["metrics"]["answers.lost"], stage["metrics"]["answers.not_understood"]) == (1, 1)
    assert any(sentence.startswith("2 of ") for sentence in stage["warnings"])
    assert {(request["model"], request["key"]) for request in server.requests} == {("tagger-72b", f"Bearer {KEY}")}
    ontology = json.loads((output(out, "ontology") / "ontology.json").read_text())
    assert ontology["tagger"] == "llm: tagger-72b"
    assert {tag["tag"] for tag in ontology["tags"]} == {"string work", "other"}
    assert sum(tag["count"] for tag in ontology["tags"]) == stage["counts"]["kept"] - 2


def test_key_of_the_user_is_in_no_file_of_the_run(tagged):
    out, _, _, done = tagged
    assert KEY not in done.stdout + done.stderr
    assert not [path for path in out.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_server_that_is_gone_ends_the_run_with_one_message_and_the_status_of_a_platform(tagged):
    out, *_ = tagged
    gone = {"kind": "endpoint", "url": "http://127.0.0.1:9/v1", "model": "tagger-72b", "max_retries": 0}
    options = settings(ontology__tagger="llm", ontology__engine=gone)
    done = qwenops("run", "smoke", "--out", out, "--until", "ontology", *options)
    assert done.returncode == 5, done.stdout + done.stderr
    assert "http://127.0.0.1:9/v1" in done.stderr and "Traceback" not in done.stderr
