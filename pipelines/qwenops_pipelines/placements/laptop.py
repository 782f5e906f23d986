"""One machine, no cluster: KFP's local runner in the installed environment."""

from qwenops.recipe.placement import Placement


def laptop() -> Placement:
    """Return the placement of `qwenops run`: paths and tracking come from the run's own folder."""
    return Placement(name="laptop", image="python:3.11")
