"""The account of a placement: what its tasks occupy and cost, for the processes that say what a run costs."""

from qwenops.recipe.codec import canonical
from qwenops.recipe.placement import Placement
from qwenops.recipe.prices import Account, Demand, cores


def account_text(placement: Placement) -> str:
    """The account of `placement` as canonical JSON, for a context; empty when the placement has no prices."""
    if placement.prices is None:
        return ""
    demands = {
        area: Demand(processors=cores(wanted.cpu), accelerators=wanted.num_accelerators)
        for area, wanted in placement.resources.items()
    }
    return canonical(Account(prices=placement.prices, budget=placement.budget, demands=demands))
