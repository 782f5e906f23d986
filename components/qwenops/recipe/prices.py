"""What computing costs: prices, what each area asks for, and a budget. Part of a placement, never of a recipe."""

from pydantic import Field

from qwenops.recipe.config import Config


class Prices(Config):
    """Prices of one place, per hour of use."""

    currency: str = Field(description="Unit of the prices, for example EUR.")
    processor_hour: float = Field(default=0.0, ge=0, description="Price of one processor core for one hour.")
    accelerator_hour: float = Field(default=0.0, ge=0, description="Price of one accelerator for one hour.")


class Demand(Config):
    """What a stage occupies while it runs, all its pods together."""

    processors: float = Field(default=0.0, ge=0, description="Processor cores.")
    accelerators: int = Field(default=0, ge=0, description="Accelerators.")


class Account(Config):
    """What a process needs to know to say what a run costs; travels in its context as text."""

    prices: Prices = Field(description="Prices per hour.")
    budget: float = Field(default=0.0, ge=0, description="What a run may cost, in the prices' currency; 0 is no limit.")
    demands: dict[str, Demand] = Field(default_factory=dict, description="Area to what each of its stages occupies.")


def cores(quantity: str) -> float:
    """Processor cores of a Kubernetes quantity: "500m" is 0.5."""
    return int(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)
