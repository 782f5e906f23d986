"""Configuration of the long-context phase."""

from pydantic import Field, model_validator

from qwenops.pretraining.phases import Phase, Practice
from qwenops.recipe.config import Config
from qwenops.training.config import TrainingConfig


class ExtendConfig(Config):
    """The concluding phase of pre-training: longer rows under a larger RoPE base."""

    phases: tuple[Phase, ...] = Field(
        default=(Phase(length=32_768, steps=1000),),
        min_length=1,
        description="Lengths in training order, §3.2: 32,768.",
    )
    rope_theta: float = Field(default=1_000_000.0, gt=0, description="RoPE base from here on, §3.2.")
    practice: Practice = Field(default=Practice(), description="Retrieval rows; house choice: none at report scale.")
    long_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of the text rows that hold long documents alone; §3.2 adds much long data, house choice: "
        "half, since its share is unpublished.",
    )
    long_tokens: int = Field(
        default=0, ge=0, description="Tokens from which a document is long; house choice: 0, the length trained before."
    )
    training: TrainingConfig = Field(
        default=TrainingConfig(learning_rate=3e-5, final_learning_rate=3e-6, warmup_steps=100),
        description="Rates and optimiser; house choice: goes on from where pre-training's rate ended.",
    )
    evaluation_tokens: int = Field(
        default=32_768, ge=1, description="Held-out tokens behind each loss; house choice: seconds of work."
    )
    evaluation_needles: int = Field(
        default=128, ge=0, description="Held-out needles, 0 for none; house choice: a standard error below 0.05."
    )

    @model_validator(mode="after")
    def _steps_agree(self) -> "ExtendConfig":
        if sum(phase.steps for phase in self.phases) != self.training.steps:
            raise ValueError("training.steps must be the sum of the phases' steps")
        return self

    @model_validator(mode="after")
    def _a_step_holds_a_row(self) -> "ExtendConfig":
        self.training.check_row(max(phase.length for phase in self.phases))
        return self
