"""Before a run: what can stay, and in words why the rest is made again."""

import dataclasses

import pytest
from google.protobuf import json_format
from tests.dags.artifacts import publish

from qwenops.contracts.manifest import read_manifest, write_manifest
from qwenops.platform.context import RunContext
from qwenops_pipelines.dags.build import build
from qwenops_pipelines.dags.nodes import ancestors
from qwenops_pipelines.placements import by_name
from qwenops_pipelines.recipes import load_recipe
from qwenops_pipelines.reuse import ReusePlan

NODES = ancestors("ingest")


@pytest.fixture
def context(tmp_path):
    return RunContext(str(tmp_path / "store"), str(tmp_path / "events"), str(tmp_path / "cache"))


@pytest.fixture
def folders(tmp_path):
    """Artifacts of the first two nodes, as the smoke recipe makes them."""
    collect = publish(tmp_path / "store", "collect")
    return {"collect": collect, "ingest": publish(tmp_path / "store", "ingest", {"collect": collect})}


def changed(folder, **facts):
    manifest = read_manifest(folder)
    write_manifest(folder, dataclasses.replace(manifest, **facts))


def test_intact_artifacts_stay_and_a_new_store_says_nothing(context, folders, tmp_path):
    assert ReusePlan(load_recipe("smoke", []), context, NODES).reused == folders
    elsewhere = dataclasses.replace(context, store=str(tmp_path / "other"))
    assert ReusePlan(load_recipe("smoke", []), elsewhere, NODES).lines() == []


def test_words_name_the_file_and_what_reads_the_stage(context, folders):
    causes = read_manifest(folders["collect"]).causes
    changed(folders["collect"], fingerprint="other", causes={**causes, "data/collect/pages.py": "old", "torch": "1.0"})
    plan = ReusePlan(load_recipe("smoke", []), context, NODES)
    assert not plan.reused
    assert plan.lines() == [
        "collect again: data/collect/pages.py changed, torch counts no more",
        "again, for what they read: ingest",
    ]


def test_words_name_the_field_of_the_recipe(context, folders):
    plan = ReusePlan(load_recipe("smoke", ["ingest.heldout_share=0.25"]), context, NODES)
    assert set(plan.reused) == {"collect"}
    assert plan.lines() == ["ingest again: heldout_share changed"]


def test_words_say_that_an_output_is_damaged(context, folders):
    (folders["ingest"] / "data.txt").write_text("another")
    plan = ReusePlan(load_recipe("smoke", []), context, NODES)
    assert plan.lines() == ["ingest again: its output is damaged, or something changed while it was made"]


def test_why_answers_for_one_stage_with_the_reasons_above_it(context, folders):
    recipe = load_recipe("smoke", [])
    assert ReusePlan(recipe, context, NODES).why("ingest") == f"ingest is reused: {folders['ingest']}"
    changed(folders["collect"], fingerprint="other", causes={})
    answer = ReusePlan(recipe, context, NODES).why("ingest").splitlines()
    assert answer[0] == "ingest runs again: what it reads is made again"
    assert answer[1].startswith("collect runs again: ")
    assert ReusePlan(recipe, context, ancestors("quality")).why("quality") == "quality has not been made yet"


def test_reused_node_is_imported_where_another_reads_it_and_takes_no_step(folders):
    pipeline = build(load_recipe("smoke", []), by_name("laptop"), until="quality", reused=folders)
    spec = json_format.MessageToDict(pipeline.pipeline_spec)
    assert set(spec["root"]["dag"]["tasks"]) == {"resolve-recipe", "quality", "importer"}
    (importer,) = (it["importer"] for it in spec["deploymentSpec"]["executors"].values() if "importer" in it)
    assert importer["artifactUri"] == {"constant": str(folders["ingest"])}
    assert importer["typeSchema"]["schemaTitle"] == "system.Dataset"
