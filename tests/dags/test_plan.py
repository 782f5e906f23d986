"""`qwenops plan`: every stage that trains, at every placement, without torch."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import yaml

from qwenops.errors import RecipeError
from qwenops.platform.context import RunContext
from qwenops.recipe.mesh import ParallelConfig
from qwenops.recipe.prices import Prices
from qwenops.training.precision import compute_dtype
from qwenops_pipelines import plan
from qwenops_pipelines.compile import compile_pipeline
from qwenops_pipelines.devices import this_cpu
from qwenops_pipelines.placements import by_name
from qwenops_pipelines.plan import describe, plan_stages
from qwenops_pipelines.recipes import load_recipe

NODES = {"mixture", "pretrain", "extend", "upcycle", "sft_seed", "sft", "reward", "dpo", "online"}


@pytest.mark.parametrize("recipe", ["smoke", "tiny"])
def test_plan_names_every_stage_that_trains_with_memory_and_time(recipe):
    stages = plan_stages(load_recipe(recipe, []), by_name("laptop"))
    assert {stage.workload.stage.split(".")[0] for stage in stages} == NODES
    assert all(stage.memory.peak > stage.memory.weights > 0 for stage in stages)
    assert all(stage.seconds > 0 for stage in stages if stage.workload.steps)


def test_plan_of_pretraining_counts_the_tokens_of_its_phases():
    recipe = load_recipe("tiny", [])
    planned = [s.workload for s in plan_stages(recipe, by_name("laptop")) if s.workload.stage == "pretrain"]
    rows = recipe.pretrain.training.batch_tokens
    assert [work.tokens for work in planned] == [phase.steps * rows for phase in recipe.pretrain.phases]


def test_plan_divides_pretraining_over_the_workers_and_says_so():
    recipe = load_recipe("tiny", [])
    alone, among = plan_stages(recipe, by_name("laptop")), plan_stages(recipe, by_name("h200_node"))
    pairs = [(a, b) for a, b in zip(alone, among, strict=True) if a.workload.sharded]
    assert all(b.memory.optimizer == a.memory.optimizer // 8 for a, b in pairs)
    assert "FSDP2" in among[1].mesh


def test_plan_with_a_price_says_money_and_without_one_that_it_is_unknown():
    recipe, placement = load_recipe("tiny", []), by_name("h200_node")
    hours = sum(stage.device_hours for stage in plan_stages(recipe, placement))
    assert "unknown" in describe(recipe, placement)
    priced = placement.model_copy(update={"prices": Prices(currency="EUR", accelerator_hour=1e6)})
    assert f"{hours * 1e6:,.2f} EUR at 1e+06 per device-hour" in describe(recipe, priced)


def test_plan_says_whether_its_rate_was_assumed():
    assert "ASSUMED, not measured: NVIDIA H200" in describe(load_recipe("tiny", []), by_name("h200_node"))


def test_plan_for_a_cpu_says_what_was_measured_on_it_and_what_is_assumed():
    text = describe(load_recipe("smoke", []), by_name("laptop"))
    assert "MEASURED just now" in text
    assert "ASSUMED: training runs at" in text
    assert "GB of each training process" in text


def test_plan_counts_fp32_where_the_processor_only_emulates_bf16(monkeypatch):
    recipe, placement = load_recipe("smoke", []), by_name("laptop")
    peaks = []
    for has_bf16 in (True, False):
        device = replace(this_cpu(), has_bf16=has_bf16)
        monkeypatch.setattr(plan, "device_of", lambda _, device=device: device)
        peaks.append(plan_stages(recipe, placement)[1].memory.activations)
    assert peaks[1] > 1.2 * peaks[0]


def test_processor_computes_in_bf16_as_the_plan_says():
    assert this_cpu().has_bf16 == (compute_dtype(torch.device("cpu"), "bf16") == torch.bfloat16)


def _with_mesh(num_workers=8, **mesh):
    placement = by_name("h200_node")
    gpu = placement.clusters["gpu"].model_copy(update={"num_workers": num_workers, "mesh": ParallelConfig(**mesh)})
    return placement.model_copy(update={"clusters": placement.clusters | {"gpu": gpu}})


def test_step_with_fewer_rows_than_workers_is_refused():
    recipe = load_recipe("tiny", ["pretrain.training.batch_tokens=512"])
    with pytest.raises(RecipeError, match="fewer rows in a step than the placement has workers"):
        plan_stages(recipe, by_name("h200_node"))


def test_mesh_of_the_placement_reaches_the_stages_and_the_plan(tmp_path):
    recipe, placement = load_recipe("qwen2_7b", []), _with_mesh(context=2, tensor=2)
    planned = {stage.workload.stage: stage for stage in plan_stages(recipe, placement)}
    assert planned["pretrain"].mesh == "shard 2 x context 2 x tensor 2"
    compile_pipeline(recipe, placement, tmp_path / "pipeline.yaml", until="pretrain")
    specs = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text(encoding="utf-8"))
    executors = next(iter(specs))["deploymentSpec"]["executors"]
    variables = {item["name"]: item["value"] for item in executors["exec-pretrain"]["container"]["env"]}
    context = RunContext.from_environment(variables)
    assert context.parallel == ParallelConfig(context=2, tensor=2)


@pytest.mark.parametrize(
    ("placement", "says"),
    [
        (_with_mesh(tensor=8), "does not divide the query heads"),
        (_with_mesh(replicate=3), "does not fit the workers"),
        (_with_mesh(num_workers=16), "has fewer GPUs than workers"),
    ],
)
def test_mesh_that_does_not_fit_is_refused_before_anything_is_compiled(tmp_path, placement, says):
    with pytest.raises(RecipeError, match=says):
        compile_pipeline(load_recipe("qwen2_7b", []), placement, tmp_path / "pipeline.yaml")
    assert not (tmp_path / "pipeline.yaml").exists()


def test_attention_by_document_is_refused_where_workers_share_rows():
    recipe = load_recipe("qwen2_7b", ["pretrain.training.attention=by_document"])
    plan_stages(recipe, _with_mesh(tensor=2))
    with pytest.raises(RecipeError, match="by_document with context 2"):
        plan_stages(recipe, _with_mesh(context=2))


def test_plan_imports_no_torch():
    code = (
        "import sys; from qwenops_pipelines.cli import main\n"
        "try: main(['plan', 'tiny'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
