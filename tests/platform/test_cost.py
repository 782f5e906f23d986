"""Cost is hours times prices, by what each area's tasks ask for."""

import json

import pytest

from qwenops.platform.observe.cost import cost_entry, read_account, spent, stage_cost
from qwenops.recipe.account import account_text
from qwenops.recipe.placement import Placement, Resources
from qwenops.recipe.prices import Demand, Prices, cores

PRICES = Prices(currency="EUR", processor_hour=0.05, accelerator_hour=3.0)


def _placement(**changes):
    return Placement(
        name="priced",
        image="i",
        resources={
            "data": Resources(cpu="500m"),
            "alignment": Resources(cpu="16", accelerator="nvidia.com/gpu", num_accelerators=8),
        },
        **changes,
    )


def test_cost_of_a_stage_worked_by_hand():
    cost = stage_cost(1800, Demand(processors=16, accelerators=8), PRICES)
    # Half an hour: 8 processor hours at 0.05 and 4 accelerator hours at 3.
    assert (cost.processor_hours, cost.accelerator_hours) == (8, 4)
    assert cost.money == pytest.approx(8 * 0.05 + 4 * 3.0)


@pytest.mark.parametrize(("quantity", "expected"), [("500m", 0.5), ("2", 2.0), ("1.5", 1.5)])
def test_processor_quantities(quantity, expected):
    assert cores(quantity) == expected


def test_placement_without_prices_gives_no_account_and_no_cost():
    assert account_text(_placement()) == ""
    assert read_account("") is None
    assert cost_entry({"dedup": {"status": "succeeded", "seconds": 9}}, {"dedup": "data"}, "") == {}


def test_cost_of_a_run_counts_what_worked_and_not_what_was_reused():
    text = account_text(_placement(prices=PRICES, budget=5.0))
    stages = {
        "dedup": {"status": "succeeded", "seconds": 7200.0},
        "quality": {"status": "skipped", "seconds": 7200.0},
        "dpo": {"status": "failed", "seconds": 3600.0},
    }
    cost = cost_entry(stages, {"dedup": "data", "quality": "data", "dpo": "alignment"}, text)["cost"]
    assert set(cost["stages"]) == {"dedup", "dpo"}
    assert cost["stages"]["dedup"]["money"] == pytest.approx(2 * 0.5 * 0.05)
    assert cost["total"]["money"] == pytest.approx(0.05 + 16 * 0.05 + 8 * 3.0)
    assert (cost["currency"], cost["budget"]) == ("EUR", 5.0)


def test_money_spent_so_far_bills_a_running_node_until_now(tmp_path):
    account = read_account(account_text(_placement(prices=PRICES)))
    facts = {
        "dedup": {"area": "data", "run_started": 0.0, "run_finished": 3600.0},
        "dpo": {"area": "alignment", "run_started": 3600.0},
        "quality": {"status": "skipped"},
    }
    for node, fact in facts.items():
        (tmp_path / f"{node}.json").write_text(json.dumps(fact))
    assert spent(tmp_path, account, now=5400.0) == pytest.approx(0.5 * 0.05 + 0.5 * (16 * 0.05 + 8 * 3.0))
