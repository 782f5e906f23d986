"""Config of the dpo stage."""

from typing import Literal

from pydantic import Field

from qwenops.alignment.measure_config import MeasureConfig
from qwenops.recipe.config import Config
from qwenops.training.config import TrainingConfig


class DpoConfig(Config):
    """Offline direct preference optimisation on the compiled preference pairs."""

    beta: float = Field(
        default=0.1, gt=0, description="Pull to the start; house choice: unpublished, 0.1 as in 2405.17931."
    )
    nll_weight: float = Field(
        default=0.0, ge=0, description="Weight of the chosen responses' own loss; house choice: small models collapse."
    )
    pairs_per_step: int = Field(default=128, ge=1, description="Pairs of one step; house choice: as in 2405.17931.")
    epochs: int = Field(
        default=1, ge=1, description="Passes over the pairs when `budget` is epochs; house choice: one."
    )
    budget: Literal["epochs", "steps"] = Field(
        default="epochs",
        description="Whether `epochs` or `training.steps` ends the run; house choice: steps for trials.",
    )
    training: TrainingConfig = Field(
        default=TrainingConfig(learning_rate=5e-7, final_learning_rate=0.0, warmup_steps=100, schedule="cosine"),
        description="Rate and shape; house choice: unpublished, between 5e-7 and 1e-6 in related work.",
    )
    max_length_tokens: int = Field(
        default=2048, ge=16, description="Longest prompt with response; house choice: related work."
    )
    strategies: tuple[str, ...] = Field(
        default=(), description="Strategies whose pairs are used; house choice: empty uses all."
    )
    control: Literal["chosen_only", "none"] = Field(
        default="none",
        description="Also train on the chosen responses alone for as many steps; house choice: shows what pairs give.",
    )
    measure: MeasureConfig = Field(
        default=MeasureConfig(), description="How the model is measured; house choice: see there."
    )
