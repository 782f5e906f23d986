"""Config of the sft stage."""

from typing import Literal

from pydantic import Field, model_validator

from qwenops.alignment.measure_config import MeasureConfig
from qwenops.recipe.config import Config
from qwenops.training.config import TrainingConfig


class SftConfig(Config):
    """Supervised fine-tuning on demonstrations, with the loss on what the assistant says."""

    training: TrainingConfig = Field(
        default=TrainingConfig(
            learning_rate=7e-6,
            final_learning_rate=7e-7,
            warmup_steps=0,
            schedule="linear",
            batch_tokens=1_048_576,
        ),
        description="Rate from 7e-6 to 7e-7, decay 0.1, clip 1.0, §4.2; the shape and the batch are house choices.",
    )
    budget: Literal["epochs", "steps"] = Field(
        default="epochs",
        description="Whether `epochs` or `training.steps` ends the run; house choice: steps for trials.",
    )
    epochs: int = Field(default=2, ge=1, description="Passes over the demonstrations, §4.2.")
    max_length_tokens: int = Field(default=32_768, ge=16, description="Longest training sequence, §4.2.")
    verifiable_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Least share of answered tokens from verifiable tasks; house choice: repeats them until reached.",
    )
    replay_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of a step's rows that are pre-training text; house choice: none, the report names none.",
    )
    replay_weight: float = Field(
        default=1.0,
        ge=0,
        description="Weight of that text's mean loss beside the answers'; house choice: as much as they.",
    )
    control: Literal["seed_data", "none"] = Field(
        default="none",
        description="Also train on the seed data alone for as many steps; house choice: shows what new data gives.",
    )
    measure: MeasureConfig = Field(
        default=MeasureConfig(), description="How the model is measured; house choice: see there."
    )

    @model_validator(mode="after")
    def _a_step_holds_answers_and_text(self) -> "SftConfig":
        if self.replay_share:
            self.training.check_row(2 * self.max_length_tokens)
        return self


def qwen1_sft() -> SftConfig:
    """Qwen1's published values (Qwen Technical Report, section 3.1.2), for comparison runs."""
    return SftConfig(
        training=TrainingConfig(
            steps=4000,
            warmup_steps=1430,
            learning_rate=2e-6,
            final_learning_rate=2e-6,
            schedule="constant",
            batch_tokens=128 * 2048,
            beta1=0.9,
            beta2=0.95,
            epsilon=1e-8,
            weight_decay=0.1,
            clip_norm=1.0,
        ),
        budget="steps",
        max_length_tokens=2048,
    )
