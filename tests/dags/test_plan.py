"""`qwenops plan`: every stage that trains, at every placement, without torch."""

import subprocess
import sys

import pytest

from qwenops.errors import RecipeError
from qwenops.recipe.prices import Prices
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


def test_step_with_fewer_rows_than_workers_is_refused():
    placement = by_name("h200_node")
    gpu = placement.clusters["gpu"].model_copy(update={"num_workers": 128})
    placement = placement.model_copy(update={"clusters": placement.clusters | {"gpu": gpu}})
    with pytest.raises(RecipeError, match="fewer rows in a step than the placement has workers"):
        plan_stages(load_recipe("tiny", []), placement)


def test_plan_imports_no_torch():
    code = (
        "import sys; from qwenops_pipelines.cli import main\n"
        "try: main(['plan', 'tiny'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
