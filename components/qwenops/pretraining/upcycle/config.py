"""`UpcycleConfig`: from a dense checkpoint to a mixture of experts, and how both are trained on."""

from typing import Literal

from pydantic import Field, model_validator

from qwenops.model.sizes import Experts
from qwenops.recipe.config import Config
from qwenops.training.config import TrainingConfig


class UpcycleConfig(Config):
    """Expert layout, initialisation, balance, and the continued training of the MoE model and its dense control."""

    experts: Experts = Field(default=Experts(), description="Layout of the experts, §2.2.2.")
    reinit_ratio: float = Field(
        default=0.5, ge=0, le=1, description="Share of each expert that is drawn afresh, §2.2.2."
    )
    granularity: Literal["neuron", "weight"] = Field(
        default="neuron",
        description="What is drawn afresh; house choice: whole neurons, so that the other half stays intact.",
    )
    start: Literal["report", "function_preserving"] = Field(
        default="report",
        description="§2.2.2, or from the dense model's own function; house choice: the second ends the jump.",
    )
    balance_coefficient: float = Field(
        default=0.001,
        ge=0,
        description="Weight of the load-balancing loss; house choice: the published config's value.",
    )
    length: int = Field(default=4096, ge=32, description="Tokens per row of the continued training, §3.2.")
    training: TrainingConfig = Field(default=TrainingConfig(), description="The continued training, §2.2.2.")
    control: Literal["dense", "none"] = Field(
        default="dense", description="Train the dense model on the same batches; house choice: the only fair yardstick."
    )
    heldout_tokens: int = Field(
        default=1_000_000,
        ge=1,
        description="Held-out text that both are scored on; house choice: under a minute at any size.",
    )

    @model_validator(mode="after")
    def _a_step_holds_a_row(self) -> "UpcycleConfig":
        self.training.check_row(self.length)
        return self

    @model_validator(mode="after")
    def _experts_are_shared(self) -> "UpcycleConfig":
        if self.experts.shared_width < 1:
            raise ValueError("experts.shared_width of at least 1: the shared expert is made of the dense layer")
        return self
