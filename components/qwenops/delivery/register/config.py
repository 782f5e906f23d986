"""What a recipe says about the gate: its own rules, the figures it does not gate, and the registered name."""

from collections.abc import Iterator

from pydantic import Field, model_validator

from qwenops.delivery.gate_config import NotGated, Rule, matches
from qwenops.delivery.register.policy import STRICT
from qwenops.recipe.config import Config
from qwenops.recipe.outside import Outside


class RegisterConfig(Config):
    """The recipe's own rules and exceptions beside the strict policy, and its name in the registry."""

    model_name: str = Field(
        default="qwenops-chat",
        min_length=1,
        description="Registered model. house choice: one line of descent per name.",
    )
    rules: tuple[Rule, ...] = Field(
        default=(),
        description="Conditions beside the strict policy (`policy.py`). house choice: a recipe knows which gains it is "
        "there to show.",
    )
    not_gated: tuple[NotGated, ...] = Field(
        default=(),
        description="Figures that the strict policy does not judge here, each with its reason; the recipe's own rules "
        "judge them still. house choice: a rule is lifted by name or not at all; the report and the card show the "
        "sentence.",
    )

    def outside(self) -> Iterator[Outside]:
        """The registry besides: a version in one is none in another."""
        yield from super().outside()
        yield Outside("registry", "the MLflow registry")

    @model_validator(mode="after")
    def _exceptions_lift_something(self) -> "RegisterConfig":
        for exception in self.not_gated:
            if not any(matches(exception.figure, r.figure) or matches(r.figure, exception.figure) for r in STRICT):
                raise ValueError(f"not_gated names {exception.figure}, which no rule of the strict policy judges")
        return self
