"""The report's section on cost: what each area and its dearest stages used and what that costs."""

from collections.abc import Mapping
from html import escape
from typing import Any

from qwenops.delivery.report.facts import RunFacts
from qwenops.delivery.report.sections.dag import AREAS
from qwenops.platform.pictures.charts import Cell, bars, number, table

_HOURS = ("processor_hours", "accelerator_hours", "money")
_MOST_BARS = 10


def cost_section(facts: RunFacts) -> str:
    """Hours and money by area, the dearest stages, and the total against the budget; empty without prices."""
    cost: Mapping[str, Any] = facts.record.get("cost") or {}
    if not cost:
        return ""
    currency, total = escape(cost["currency"]), cost["total"]
    rows = [_row(area, _sum(cost["stages"], nodes), total["money"]) for area, nodes in AREAS.items()]
    rows.append(_row("whole run", total, total["money"]))
    head = ("area", "processor hours", "accelerator hours", currency)
    dear = sorted(cost["stages"].items(), key=lambda item: -item[1]["money"])[:_MOST_BARS]
    chart = bars(
        "Dearest stages", [(node, c["money"], f"{number(c['money'])} {currency}") for node, c in dear if c["money"]]
    )
    return f"<h2>Cost</h2>{_verdict(cost)}<div class='grid'><div class='card'>{table(head, rows)}</div>{chart}</div>"


def _verdict(cost: Mapping[str, Any]) -> str:
    spent, budget, currency = cost["total"]["money"], cost["budget"], escape(cost["currency"])
    limit = f" of a budget of {number(budget)}" if budget else ""
    kind = "bad" if budget and spent > budget else "good"
    return f"<p><b class='{kind}'>{number(spent)} {currency}</b>{limit}; stages that were reused cost nothing.</p>"


def _sum(stages: Mapping[str, Mapping[str, float]], nodes: tuple[str, ...]) -> dict[str, float]:
    return {hours: sum(stages[node][hours] for node in nodes if node in stages) for hours in _HOURS}


def _row(label: str, cost: Mapping[str, float], whole: float) -> list[Cell]:
    share = cost["money"] / whole if whole and label != "whole run" else None
    return [Cell(label), *(Cell(number(cost[hours])) for hours in _HOURS[:2]), Cell(number(cost["money"]), share)]
