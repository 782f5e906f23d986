import shutil
import time

import mlflow
import pytest
from tests.delivery.registered import NAME, QUESTION, register_run
from tests.platform.registering import SCORE, compete, register

from qwenops.delivery.gate_config import Rule
from qwenops.errors import PlatformError
from qwenops.platform.mlflow import registry
from qwenops.platform.mlflow.model import write_mlflow_model


def test_register_without_tracking_has_no_alias(tmp_path, model):
    stage, record = register_run(tmp_path, "a", model, "")
    assert record["passed"] is True
    assert record["alias"] is None
    assert stage.metrics["gate.passed"] == 1.0


def test_register_moves_champion_only_to_a_model_that_is_not_worse(tmp_path, model, uri):
    _, first = register_run(tmp_path, "a", model, uri)
    failed_stage, failed = register_run(tmp_path, "b", model, uri, {"contamination.gsm8k.contaminated_share": 1.0})
    _, worse = register_run(tmp_path, "c", model, uri, {SCORE: 0.70, "dpo.pass_rate": 0.6})
    assert (first["alias"], failed["alias"], worse["alias"]) == ("champion", "candidate", "candidate")
    assert failed["passed"] is False
    assert any("contaminated_share" in sentence for sentence in failed_stage.warnings)
    assert worse["passed"] is False
    assert [f["sentence"] for f in worse["findings"] if not f["passed"]] == [
        f"{SCORE} = 0.7 should be at least 0.7467 (the present champion's), less 0.063 for chance"
    ]
    assert registry.champion(uri, NAME).number == "1"
    _, better = register_run(tmp_path, "d", model, uri)
    assert better["alias"] == "champion"
    assert registry.champion(uri, NAME).number == "4"


def test_model_that_is_behind_by_chance_passes_and_champion_stays_so_that_no_series_drifts_down(tmp_path, model, uri):
    register_run(tmp_path, "first", model, uri)
    for step, score in enumerate((0.80, 0.79, 0.78)):
        stage, record = register_run(tmp_path, f"after-{step}", model, uri, {SCORE: score})
        assert (record["passed"], record["alias"]) == (True, "candidate")
        (reason,) = [finding["sentence"] for finding in record["findings"] if finding["behind"]]
        assert reason.startswith(
            f"{SCORE} = {score:.4g} is behind 0.81 (the present champion's) by no more than chance"
        )
        assert reason in record["reasons"] and stage.warnings == []
    assert registry.champion(uri, NAME).number == "1"
    assert _settled(uri, NAME)[4] == "passed, behind the champion"
    # What a version that slept puts back is one that was champion.
    _, better = register_run(tmp_path, "better", model, uri, {SCORE: 0.82})
    assert better["alias"] == "champion"


def test_verdict_tag_and_description_say_what_the_record_says(tmp_path, model, uri):
    register_run(tmp_path, "a", model, uri)
    _, worse = register_run(tmp_path, "b", model, uri, {SCORE: 0.70, "dpo.pass_rate": 0.6})
    version = registry.MlflowClient(uri).get_model_version(NAME, "2")
    (sentence,) = [finding["sentence"] for finding in worse["findings"] if not finding["passed"]]
    assert version.tags["gate"] == "failed"
    assert f"FAILS: {sentence}" in version.description
    assert registry.MlflowClient(uri).get_model_version_by_alias(NAME, "candidate").version == 2


def test_registered_version_is_a_model_that_loads_and_answers(tmp_path, model, uri, monkeypatch):
    register_run(tmp_path, "a", model, uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    (answer,) = mlflow.pyfunc.load_model(f"models:/{NAME}@champion").predict(QUESTION)
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] == 4
    pipeline = mlflow.transformers.load_model(f"models:/{NAME}@champion")
    (said,) = pipeline(QUESTION["messages"], max_new_tokens=4, do_sample=False)
    assert said["generated_text"][-1]["role"] == "assistant"


def test_model_description_depends_on_no_clock(model, tmp_path):
    before = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    again = tmp_path / "again"
    shutil.copytree(model, again)
    write_mlflow_model(again, "ab" * 32)
    assert {name: (again / name).read_bytes() for name in before} == before


def _settled(uri, name):
    client = registry.MlflowClient(uri)
    return {int(v.version): v.tags["gate"] for v in client.search_model_versions(f"name = '{name}'")}


def test_of_registrations_at_once_the_best_is_champion(uri):
    scores = [(0.5, 0.6), (0.6, 0.5), (0.55, 0.5), (0.5, 0.55), (0.51, 0.5)]
    trials = [{f"trial-{number}": both} for number, both in enumerate(scores)]
    aliases = compete(uri, trials, 2)
    for trial in trials:
        ((name, both),) = trial.items()
        assert registry.champion(uri, name).figures[SCORE] == max(both), aliases
        assert aliases[name][both.index(max(both))] == "champion"
        assert set(_settled(uri, name).values()) <= {"passed", "failed"}


@pytest.mark.integration
def test_fifty_times_three_registrations_at_once_the_best_is_champion(uri):
    orders = [(0.5, 0.6, 0.7), (0.7, 0.6, 0.5), (0.6, 0.7, 0.5), (0.7, 0.5, 0.6), (0.5, 0.7, 0.6)] * 10
    trials = [{f"trial-{number}": scores} for number, scores in enumerate(orders)]
    aliases = compete(uri, trials, 3)
    wrong = {
        name: aliases[name] for trial in trials for name in trial if registry.champion(uri, name).figures[SCORE] < 0.7
    }
    assert wrong == {}


def test_version_whose_process_died_holds_the_next_one_up_once(uri):
    register(uri, NAME, 0.5)
    client = registry.MlflowClient(uri)
    dead = client.create_model_version(NAME, "s3://models/chat", tags={"gate": "pending"}).version
    began = time.monotonic()
    assert register(uri, NAME, 0.6, turn_seconds=0.5) == "champion"
    assert time.monotonic() - began > 0.5
    assert _settled(uri, NAME) == {1: "passed", int(dead): "unfinished", 3: "passed"}


def test_registration_that_slept_through_its_turn_fails_and_puts_the_champion_back(uri):
    register(uri, NAME, 0.5)
    client = registry.MlflowClient(uri)
    with (
        pytest.raises(PlatformError, match="lost its turn"),
        registry.registration_turn(uri, NAME, "s3://models/chat", run_id="", figures={SCORE: 0.55}, tags={}) as sleeper,
    ):
        assert register(uri, NAME, 0.6, turn_seconds=0.2) == "champion"
        # It was about to move the alias when it fell asleep.
        client.set_registered_model_alias(NAME, "champion", sleeper.version.number)
        sleeper.settle(passed=True, description="")
    assert registry.champion(uri, NAME).figures[SCORE] == 0.6
    assert _settled(uri, NAME) == {1: "passed", 2: "unfinished", 3: "passed"}


def test_block_that_fails_leaves_no_pending_version(uri):
    with (
        pytest.raises(ValueError, match="verdict"),
        registry.registration_turn(uri, NAME, "s3://m", run_id="", figures={}, tags={}),
    ):
        raise ValueError("no verdict")
    assert _settled(uri, NAME) == {1: "unfinished"}
    assert registry.champion(uri, NAME) is None


def test_check_of_a_registry_leaves_nothing_behind(uri):
    registry.check_registry(uri)
    assert registry.MlflowClient(uri).search_registered_models() == []


def test_rule_of_the_recipe_is_in_the_record(tmp_path, model, uri):
    _, record = register_run(tmp_path, "a", model, "")
    assert (
        Rule(figure="reward.pair_accuracy", bound="at_least", value=0.6).model_dump(mode="json").items()
        <= next(finding for finding in record["findings"] if finding["figure"] == "reward.pair_accuracy").items()
    )
