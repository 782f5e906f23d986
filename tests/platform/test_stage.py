"""A stage is reused when nothing changed, made again when something did, and publishes whole outputs or none."""

import json

import pytest
from tests.platform.toy import toy_stage

from qwenops.contracts.manifest import MANIFEST, read_manifest
from qwenops.errors import ContractError, PlatformError, RecipeError, StageError
from qwenops.platform.identity.sources import Sources, reasons
from qwenops.platform.launch.execute import execute
from qwenops.platform.launch.serve_stages import answer
from qwenops.recipe.codec import canonical

RUN = """
from qwenops.errors import ContractError
def run(config, *, stage, source=None):
    (stage.out / "value.txt").write_text(str(config.value + (int((source / "value.txt").read_text()) if source else 0)))
    if config.fault == "contract":
        raise ContractError("bad rows")
    if config.fault == "bug":
        raise KeyError("oops")
    if config.fault == "disk":
        raise OSError(28, "No space left on device")
    stage.count(read=3, kept=2, dropped={"short": 1})
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A package of one stage, `toy.counter`, and the environment of a run."""
    with toy_stage(tmp_path, monkeypatch, RUN) as folder:
        yield folder


def run_counter(node="counter", inputs=None, **config):
    text = canonical({"node": node, "seed": 1, "config": config})
    return execute("toy.counter", text, inputs or {})


def test_stage_run_twice_second_is_reused(toy):
    first, second = run_counter(value=4), run_counter(value=4)
    assert (first.reused, second.reused) == (False, True)
    assert first.path == second.path
    assert (second.path / "value.txt").read_text() == "4"
    assert json.loads((toy / "events" / "counter.json").read_text())["status"] == "skipped"


def test_stage_with_other_config_is_made_anew_and_the_old_one_is_kept(toy):
    first, second = run_counter(value=4), run_counter(value=5)
    assert first.path != second.path
    assert run_counter(value=4).reused


@pytest.mark.parametrize("damage", ["change", "delete"])
def test_stage_with_damaged_output_is_made_again_and_so_is_its_consumer(toy, damage):
    first = run_counter(value=4)
    consumer = run_counter(node="consumer", inputs={"source": first.path}, value=1)
    if damage == "change":
        (first.path / "value.txt").write_text("9")
    else:
        (first.path / MANIFEST).unlink()
    again = run_counter(value=4)
    assert not again.reused
    assert (again.path / "value.txt").read_text() == "4"
    redone = run_counter(node="consumer", inputs={"source": again.path}, value=1)
    assert not redone.reused
    assert redone.manifest.digest == consumer.manifest.digest


@pytest.mark.parametrize(
    ("fault", "family"), [("contract", ContractError), ("bug", StageError), ("disk", PlatformError)]
)
def test_failing_stage_publishes_nothing_and_names_the_family(toy, fault, family):
    with pytest.raises(family) as error:
        run_counter(fault=fault)
    assert not list((toy / "store" / "counter").glob("[!.]*"))
    event = json.loads((toy / "events" / "counter.json").read_text())
    assert (event["status"], event["error"]["family"]) == ("failed", family.__name__)
    assert error.value.exit_status in (3, 4, 5)
    assert not run_counter(fault="").reused


def test_stage_with_unknown_config_field_is_refused_with_its_path(toy):
    with pytest.raises(RecipeError, match=r"counter\.config\.valeu[\s\S]*did you mean value"):
        run_counter(valeu=3)


def test_stage_reading_a_folder_without_manifest_is_refused(toy, tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(ContractError, match="no readable manifest"):
        run_counter(inputs={"source": tmp_path / "raw"})


def test_manifest_accounts_for_every_record(toy):
    manifest = read_manifest(run_counter(value=2).path)
    assert manifest.counts == {"read": 3, "kept": 2, "dropped": {"short": 1}}
    assert manifest.records == 2
    assert manifest.files["value.txt"]["bytes"] == 1


def message_of(**config):
    return {"stage": "toy.counter", "slice": canonical({"node": "counter", "seed": 1, "config": config}), "inputs": {}}


def test_stage_whose_code_changed_is_made_again(toy):
    first = run_counter(value=4)
    source = toy / "package" / "toy" / "counter" / "run.py"
    source.write_text(f"# A comment.\n{source.read_text()}")
    assert run_counter(value=4).reused
    source.write_text(source.read_text().replace('"short": 1', '"long": 1'))
    again = run_counter(value=4)
    assert not again.reused
    assert again.manifest.code_version != first.manifest.code_version
    earlier, now = first.manifest, again.manifest
    assert reasons(earlier, now.causes, now.config, now.parents) == ["toy/counter/run.py changed"]
    assert reasons(earlier, earlier.causes, earlier.config | {"value": 5}, {}) == ["value changed"]


def test_stage_whose_code_changes_while_it_runs_is_used_once(toy):
    source = toy / "package" / "toy" / "counter" / "run.py"
    changing = source.read_text().replace(
        "stage.count(", 'open(__file__, "a").write("run.later = 1\\n")\n    stage.count('
    )
    source.write_text(changing)
    published = run_counter(value=4)
    assert (published.path / "value.txt").read_text() == "4"
    assert "toy/counter/run.py changed while counter was made" in published.manifest.warnings[0]
    source.write_text(changing)
    assert not run_counter(value=4).reused


def test_server_that_holds_older_code_makes_what_is_used_once(toy):
    loaded = Sources(toy / "cache")
    source = toy / "package" / "toy" / "counter" / "run.py"
    source.write_text(source.read_text().replace('"short": 1', '"long": 1'))
    assert "path" in answer(message_of(value=4), loaded)
    assert not run_counter(value=4).reused
    assert run_counter(value=4).reused
    assert "path" in answer(message_of(value=5), Sources(toy / "cache"))
    assert run_counter(value=5).reused
