"""The whole DAG end to end through KFP's local runner, and what a rerun does."""

import fcntl
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.dags.conftest import qwenops

from qwenops.recipe.placement import Placement
from qwenops_pipelines.dags.edges import NODES
from qwenops_pipelines.local import _context
from qwenops_pipelines.recipes import load_recipe
from qwenops_pipelines.reuse import Stock

RUN_SECONDS = 600
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


def record_of(out):
    return json.loads((out / "run.json").read_text())


@pytest.mark.timeout(RUN_SECONDS)
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


@pytest.mark.timeout(RUN_SECONDS)
def test_smoke_report_is_one_self_contained_page(smoke_run):
    page = (smoke_run / "report.html").read_text()
    assert "<svg" in page
    for outside in ("<script src", '<link rel="stylesheet" href', 'src="http'):
        assert outside not in page
    for node in NODES:
        assert node.name in page


@pytest.mark.timeout(RUN_SECONDS)
def test_second_run_recomputes_nothing(started):
    before = record_of(started)
    result = qwenops("run", "smoke", "--out", started)
    assert result.returncode == 0, result.stderr
    after = record_of(started)
    assert {stage["status"] for stage in after["stages"].values()} == {"skipped"}
    assert {**after["model"], "path": ""} == {**before["model"], "path": ""}
    gate = after["model"]["gate"]
    assert ("gate:   passed" in result.stdout) == gate["passed"]
    assert all(reason in result.stdout for reason in gate["reasons"])
    assert (started / "report.html").stat().st_size > 0


@pytest.mark.timeout(RUN_SECONDS)
def test_deleted_output_is_made_again_with_what_depends_on_it(smoke_run, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(smoke_run, out, symlinks=True)
    shutil.rmtree(next((out / "stages" / "tokenizer").glob("[!.]*")))
    context = _context(out, Placement(name="t", image="python"), NODES)
    found = set(Stock(load_recipe("smoke", []), context, NODES).found)
    assert {"collect", "ingest", "quality", "dedup", "decontaminate", "ontology", "select", "evolve"} == found
    result = qwenops("run", "smoke", "--out", out, "--until", "tokenizer")
    assert result.returncode == 0, result.stderr
    stages = record_of(out)["stages"]
    assert stages["tokenizer"]["status"] == "succeeded"
    assert stages["decontaminate"]["status"] == "skipped"


def test_other_sft_learning_rate_reuses_everything_before_sft(smoke_run):
    recipe = load_recipe("smoke", ["sft.training.learning_rate=0.00123"])
    context = _context(smoke_run, Placement(name="t", image="python"), NODES)
    lost = {node.name for node in NODES} - set(Stock(recipe, context, NODES).found)
    assert {"sft", "reward", "dpo", "online", "export", "register", "report"} <= lost
    assert not lost & {"tokens", "pretrain", "extend", "upcycle", "sft_seed", "rank", "synthesize", "long_context"}


@pytest.mark.timeout(RUN_SECONDS)
def test_command_says_why_a_stage_would_run_again_and_runs_nothing(smoke_run):
    before = (smoke_run / "run.json").read_bytes()
    result = qwenops("run", "smoke", "--out", smoke_run, "--why", "dpo", "--set", "sft.training.learning_rate=0.00123")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == "dpo runs again: what it reads is made again"
    assert any(line.startswith("sft runs again: training.learning_rate changed") for line in result.stdout.splitlines())
    assert (smoke_run / "run.json").read_bytes() == before


@pytest.mark.timeout(RUN_SECONDS)
def test_broken_pages_stop_the_run_before_any_training(tmp_path):
    source = tmp_path / "pages"
    source.mkdir()
    (source / "a.txt").write_bytes(b"\xff\xfe" + b"\x00" * 50)
    sources = json.dumps([{"kind": "folder", "name": "broken", "path": str(source)}])
    out = tmp_path / "run"
    result = qwenops("run", "smoke", "--out", out, "--set", f"collect.sources={sources}")
    assert result.returncode == 3, result.stdout + result.stderr
    assert "ContractError" in result.stderr
    assert "Traceback" not in result.stderr
    record = record_of(out)
    assert record["status"] == "failed"
    assert "pretrain" not in record["stages"]
    assert "ContractError" in (out / "report.html").read_text()


def test_second_run_into_a_busy_folder_is_refused(tmp_path):
    with (tmp_path / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        result = qwenops("run", "smoke", "--out", tmp_path)
    assert result.returncode == 5
    assert "another run is writing" in result.stderr


def test_output_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    result = qwenops("run", "smoke", "--out", tmp_path / "file" / "run")
    assert result.returncode == 5
    assert "cannot write" in result.stderr
    assert "Traceback" not in result.stderr


def test_disk_that_takes_nothing_more_is_one_clear_error(tmp_path):
    command = [sys.executable, "-m", "qwenops_pipelines.cli", "compile", "smoke", "--placement", "laptop", "-o"]

    def no_file_may_grow():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    result = subprocess.run(
        [*command, tmp_path / "p.yaml"], capture_output=True, text=True, check=False, preexec_fn=no_file_may_grow
    )
    assert result.returncode == 5
    assert "free some space" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "p.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("run", "tinny"), "tiny"),
        (("run", "smoke", "--set", "pretrain.stepz=3"), "pretrain.stepz"),
        (("run", "smoke", "--until", "tokenz"), "tokens"),
        (("run", "smoke", "--placement", "moon"), "laptop"),
        (("run", "smoke", "--placement", "kind"), "qwenops submit"),
        (("show", "/nowhere"), "run record"),
    ],
)
def test_wrong_command_line_ends_with_status_2_and_one_message(arguments, word):
    result = qwenops(*arguments)
    assert result.returncode == 2
    assert word in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.timeout(RUN_SECONDS)
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_stopped_run_leaves_whole_outputs_and_continues(tmp_path, sign):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "qwenops_pipelines.cli", "run", "smoke", "--out", str(out), "--until", "quality"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not list((out / "stages").glob("collect/[!.]*/manifest.json")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    process.send_signal(sign)
    process.wait(60)
    for folder in (out / "stages").glob("[!.]*/[!.]*"):
        assert (folder / "manifest.json").exists()
    result = qwenops("run", "smoke", "--out", out, "--until", "quality")
    assert result.returncode == 0, result.stderr
    assert record_of(out)["stages"]["collect"]["status"] == "skipped"


def test_show_and_compare_print_the_figures_of_a_run(smoke_run):
    shown = qwenops("show", smoke_run).stdout
    assert "planted.recall" in shown
    assert qwenops("compare", smoke_run, smoke_run).returncode == 0


def test_rerun_reads_only_this_folder(smoke_run):
    assert all(
        Path(stage["outputs"]["output"]["path"]).is_relative_to(smoke_run.resolve())
        for stage in record_of(smoke_run)["stages"].values()
    )
