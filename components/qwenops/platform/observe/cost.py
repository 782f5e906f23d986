"""What a run costs: hours of processors and accelerators by stage, times their prices.

Computed from wall time and from what the placement asks for, since that is what a cloud bills: a GPU that waits for
its data costs as much as one that computes. Queueing and image pulls are not counted.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qwenops.recipe.codec import decode
from qwenops.recipe.prices import Account, Demand, Prices

_HOUR = 3600.0


@dataclass(frozen=True)
class Cost:
    """Hours of use and their price.

    Attributes:
        processor_hours: Cores times hours.
        accelerator_hours: Accelerators times hours.
        money: In the prices' currency.
    """

    processor_hours: float = 0.0
    accelerator_hours: float = 0.0
    money: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.processor_hours + other.processor_hours,
            self.accelerator_hours + other.accelerator_hours,
            self.money + other.money,
        )


def stage_cost(seconds: float, demand: Demand, prices: Prices) -> Cost:
    """Cost of holding `demand` for `seconds` at `prices`."""
    processors, accelerators = (count * seconds / _HOUR for count in (demand.processors, demand.accelerators))
    return Cost(processors, accelerators, processors * prices.processor_hour + accelerators * prices.accelerator_hour)


def run_cost(seconds: Mapping[str, float], areas: Mapping[str, str], account: Account) -> dict[str, Cost]:
    """Node to its cost.

    Args:
        seconds: Node to the seconds its own work took in this run; a reused node is absent or 0.
        areas: Node to its area; a node whose area the account does not list costs nothing.
        account: Prices and demands.
    """
    nothing = Demand(processors=0.0, accelerators=0)
    return {
        node: stage_cost(took, account.demands.get(areas.get(node, ""), nothing), account.prices)
        for node, took in seconds.items()
    }


def spent(events: Path, account: Account, now: float | None = None) -> float:
    """Money that a run has cost so far, from the events its nodes recorded; a running node is billed until `now`."""
    total, moment = 0.0, time.time() if now is None else now
    nothing = Demand(processors=0.0, accelerators=0)
    for path in events.glob("*.json"):
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if "run_started" in facts:
            seconds = facts.get("run_finished", moment) - facts["run_started"]
            total += stage_cost(seconds, account.demands.get(facts.get("area", ""), nothing), account.prices).money
    return total


def cost_entry(stages: Mapping[str, Mapping[str, Any]], areas: Mapping[str, str], text: str) -> dict[str, Any]:
    """The `cost` of a run record, as a mapping to add to it: empty when the context has no account.

    Args:
        stages: The record's stages; `seconds` of those that did work count, a reused one costs nothing.
        areas: Node to its area.
        text: The context's account.
    """
    account = read_account(text)
    if account is None:
        return {}
    worked = {name: float(f.get("seconds") or 0.0) for name, f in stages.items() if f.get("status") != "skipped"}
    costs = run_cost(worked, areas, account)
    return {
        "cost": {
            "currency": account.prices.currency,
            "budget": account.budget,
            "stages": {name: asdict(cost) for name, cost in costs.items()},
            "total": asdict(sum(costs.values(), Cost())),
        }
    }


def read_account(text: str) -> Account | None:
    """The account that a context carries as text; None for none."""
    return decode(Account, text) if text else None
