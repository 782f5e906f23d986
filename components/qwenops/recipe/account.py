"""The account of a placement: what its tasks occupy and cost, for the processes that say what a run costs."""

from qwenops.recipe.codec import canonical
from qwenops.recipe.placement import Placement
from qwenops.recipe.prices import Account, Demand, cores


def account_text(placement: Placement) -> str:
    """The account of `placement` as canonical JSON, for a context; empty when the placement has no prices."""
    if placement.prices is None:
        return ""
    demands = {area: _demand(placement, area) for area in sorted({*placement.resources, *placement.launchers})}
    return canonical(Account(prices=placement.prices, budget=placement.budget, demands=demands))


def _demand(placement: Placement, area: str) -> Demand:
    """What a stage of `area` occupies: its Ray cluster's pods where it runs as a RayJob, else its step's pod."""
    cluster = placement.cluster(area)
    pods = [(1, cluster.head), *((group.replicas, group) for group in cluster.workers.values())] if cluster else []
    wanted = [(count, pod.resources) for count, pod in pods] or [(1, placement.resources[area])]
    return Demand(
        processors=sum(count * cores(resources.cpu) for count, resources in wanted),
        accelerators=sum(count * resources.num_accelerators for count, resources in wanted),
    )
