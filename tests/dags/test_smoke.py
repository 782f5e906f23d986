"""The whole DAG end to end through KFP's local runner, and what a rerun does."""

import re
import shutil
from pathlib import Path

import pytest
from tests.dags.conftest import qwenops, record_of

from qwenops.recipe.placement import Placement
from qwenops_pipelines.dags.nodes import NODES
from qwenops_pipelines.local import _context
from qwenops_pipelines.recipes import load_recipe
from qwenops_pipelines.reuse import ReusePlan

REQUIRED = {
    "pretrain": ("loss.first", "loss.final", "needle.accuracy", "tokens_per_second", "bits_per_byte.en"),
    "extend": ("loss.first", "loss.final", "needle.accuracy", "tokens_per_second", "bits_per_byte.en"),
    "upcycle": ("loss.moe", "loss.dense", "experts.dead", "loss.moe.first"),
    "dedup": ("planted.recall", "planted.precision"),
    "sft_seed": ("pass_rate", "pass_rate.sampled"),
    "sft": ("pass_rate", "pass_rate.sampled", "control.pass_rate"),
    "dpo": ("pass_rate", "pass_rate.sampled", "control.pass_rate"),
    "reward": ("pair_accuracy",),
    "online": ("pass_rate", "reward.first", "reward.final", "kl.final", "adamw.pass_rate", "adamw.reward.final"),
    "long_context": tuple(
        f"{kind}.{mode}.{k}x{end}"
        for mode in ("plain", "temperature", "yarn", "dca_raw", "dca")
        for k in (1, 2, 4, 8)
        for kind, end in (("niah", ".accuracy"), ("niah", ".needles"), ("loss", ""))
    ),
    "safety": ("benign_refusal_rate", "before.benign_refusal_rate"),
}


def test_smoke_run_fills_the_record_with_every_stage_and_figure(smoke_run):
    record = record_of(smoke_run)
    assert record["status"] == "succeeded"
    assert list(record["stages"]) == sorted(node.name for node in NODES)
    for name, wanted in REQUIRED.items():
        missing = [metric for metric in wanted if metric not in record["stages"][name]["metrics"]]
        assert not missing, f"{name} lacks {missing}"
    assert (
        record["stages"]["sft"]["inputs"]["checkpoint"] == record["stages"]["sft_seed"]["outputs"]["output"]["digest"]
    )
    assert record["model"]["alias"]
    assert record["model"]["mlflow_uri"].startswith("models:/")


def test_smoke_report_is_one_self_contained_page(smoke_run):
    page = (smoke_run / "report.html").read_text()
    assert "<svg" in page
    for outside in ("<script src", '<link rel="stylesheet" href', 'src="http'):
        assert outside not in page
    for node in NODES:
        assert node.name in page


@pytest.fixture(scope="module")
def rerun(started):
    """What a second run into the folder said."""
    result = qwenops("run", "smoke", "--out", started)
    assert result.returncode == 0, result.stderr
    return result


def test_second_run_recomputes_nothing(smoke_run, started, rerun):
    before, after, result = record_of(smoke_run), record_of(started), rerun
    assert {stage["status"] for stage in after["stages"].values()} == {"skipped"}
    assert {**after["model"], "path": ""} == {**before["model"], "path": ""}
    gate = after["model"]["gate"]
    assert ("gate:   passed" in result.stdout) == gate["passed"]
    assert all(reason in result.stdout for reason in gate["reasons"])
    assert (started / "report.html").stat().st_size > 0


def test_record_of_the_run_that_did_the_work_outlives_a_rerun(started, rerun):
    kept = {path.parent for path in started.glob("*/run.json")} - {started / "latest"}
    first, newest = sorted(kept)
    assert {stage["status"] for stage in record_of(first)["stages"].values()} == {"succeeded"}
    assert {stage["status"] for stage in record_of(newest)["stages"].values()} == {"skipped"}
    assert (started / "latest").resolve() == newest
    assert record_of(started) == record_of(newest)
    # What a page links to is found from where it lies.
    linked = re.findall(r'href="([^"#:]+)"', (first / "report.html").read_text(encoding="utf-8"))
    assert linked and not [link for link in linked if not (first / link).exists()]
    compared = qwenops("compare", first, started / "latest")
    assert compared.returncode == 0, compared.stderr


@pytest.mark.parametrize("deleted", ["tokenizer", "select"])
def test_deleted_output_is_to_be_made_again_with_what_depends_on_it(smoke_run, tmp_path, deleted):
    out = tmp_path / "copy"
    shutil.copytree(smoke_run, out, symlinks=True)
    shutil.rmtree(next((out / "stages" / deleted).glob("[!.]*")))
    after = {deleted}
    for node in NODES:
        if after & set(node.inputs.values()):
            after.add(node.name)
    context = _context(out, Placement(name="t", image="python"), NODES)
    assert set(ReusePlan(load_recipe("smoke", []), context, NODES).reused) == {node.name for node in NODES} - after
    if deleted == "tokenizer":
        assert after >= {"tokens", "pretrain", "sft"} and not after & {"decontaminate", "select", "evolve"}


def test_deleted_output_is_made_again_and_what_it_reads_is_not(started):
    shutil.rmtree(next((started / "stages" / "select").glob("[!.]*")))
    result = qwenops("run", "smoke", "--out", started, "--until", "select")
    assert result.returncode == 0, result.stderr
    states = {name: stage["status"] for name, stage in record_of(started)["stages"].items()}
    assert states.pop("select") == "succeeded"
    assert {"decontaminate", "ontology"} <= states.keys() and set(states.values()) == {"skipped"}
    # What was found takes no step of its own, each of which is a process.
    assert {step.name for step in started.glob("kfp/*/*")} == {"resolve-recipe", "select"}


def test_other_sft_learning_rate_reuses_everything_before_sft(smoke_run):
    recipe = load_recipe("smoke", ["sft.training.learning_rate=0.00123"])
    context = _context(smoke_run, Placement(name="t", image="python"), NODES)
    lost = {node.name for node in NODES} - set(ReusePlan(recipe, context, NODES).reused)
    assert {"sft", "reward", "dpo", "online", "export", "register", "report"} <= lost
    assert not lost & {"tokens", "pretrain", "extend", "upcycle", "sft_seed", "rank", "synthesize", "long_context"}


def test_command_says_why_a_stage_would_run_again_and_runs_nothing(smoke_run):
    before = (smoke_run / "run.json").read_bytes()
    result = qwenops("run", "smoke", "--out", smoke_run, "--why", "dpo", "--set", "sft.training.learning_rate=0.00123")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == "dpo runs again: what it reads is made again"
    assert any(line.startswith("sft runs again: training.learning_rate changed") for line in result.stdout.splitlines())
    assert (smoke_run / "run.json").read_bytes() == before


def test_show_and_compare_print_the_figures_of_a_run(smoke_run):
    shown = qwenops("show", smoke_run).stdout
    assert "planted.recall" in shown
    assert qwenops("compare", smoke_run, smoke_run).returncode == 0


def test_rerun_reads_only_this_folder(smoke_run):
    assert all(
        Path(stage["outputs"]["output"]["path"]).is_relative_to(smoke_run.resolve())
        for stage in record_of(smoke_run)["stages"].values()
    )
