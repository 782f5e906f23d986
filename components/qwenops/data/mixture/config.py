"""Settings of the mixture search."""

from typing import Literal

from pydantic import Field, model_validator

from qwenops.model.sizes import check_heads
from qwenops.recipe.config import Config
from qwenops.training.config import TrainingConfig


class SourceWeight(Config):
    """How often each training document of one source counts: what a review of the source decides."""

    source: str = Field(description="Name of the source in collect. House choice: what reviewers judge.")
    weight: float = Field(
        ge=0,
        le=20,
        description="Times a document is taken in an epoch, 0 drops the source; house choice: Qwen1 up-samples some"
        " sources (section 2.1) and gives no factors.",
    )


class MixtureConfig(Config):
    """A search with small models for the share of each bucket of documents.

    The report says that the distribution of data was chosen by experiments on scaled-down models (section 3.1) and not
    how. The method here is RegMix: many tiny proxies on random mixtures, a regression, a simulated search.
    """

    proxies: int = Field(
        default=64,
        ge=0,
        description="Proxies trained; 0 keeps the prior; house choice: RegMix used 512 at a larger scale.",
    )
    hidden_size: int = Field(
        default=256, ge=16, description="Width of a proxy; house choice: about a million parameters."
    )
    num_layers: int = Field(default=4, ge=1, description="Layers of a proxy; house choice: as above.")
    num_heads: int = Field(default=4, ge=1, description="Heads of a proxy; house choice: as above.")
    context_length_tokens: int = Field(default=512, ge=8, description="Row length of a proxy; house choice: fast.")
    training: TrainingConfig = Field(
        default=TrainingConfig(
            steps=1000,
            batch_tokens=65_536,
            learning_rate=4e-3,
            final_learning_rate=4e-4,
            warmup_steps=50,
            precision="bf16",
        ),
        description="One proxy's training, the same for all of them; house choice: far beyond the noise of a start.",
    )
    sample_bytes: int = Field(
        default=200_000_000,
        ge=1000,
        description="Text of each bucket that proxies see; house choice: no repetition in a run.",
    )
    measured_rows: int = Field(
        default=64,
        ge=1,
        description="Rows of each bucket that a proxy's loss is measured on; house choice: noise below 1 %.",
    )
    measured_share: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Share of a bucket's sampled documents kept for measuring; house choice: common.",
    )
    target: Literal["uniform", "prior"] = Field(
        default="uniform",
        description="How bucket losses are averaged; house choice: uniform, so that small buckets count.",
    )
    strength_low: float = Field(default=0.1, gt=0, description="Least Dirichlet concentration; house choice: RegMix's.")
    strength_high: float = Field(
        default=5.0, gt=0, description="Largest Dirichlet concentration; house choice: RegMix's."
    )
    prior_share: float = Field(
        default=0.25,
        ge=0,
        lt=1,
        description="Part of every mixture that is the prior; house choice: no proxy can prove a bucket useless.",
    )
    simulated: int = Field(default=100_000, ge=100, description="Mixtures simulated; house choice: RegMix's order.")
    averaged: int = Field(default=100, ge=1, description="Best simulated mixtures averaged; house choice: RegMix's.")
    planned_tokens: int = Field(
        default=7_000_000_000_000, ge=1, description="Tokens that pre-training will take, for the epoch cap, §3.1."
    )
    max_epochs: float = Field(
        default=4.0,
        gt=0,
        description="Times a bucket may be repeated; house choice: repetition beyond it gives little.",
    )
    source_weights: tuple[SourceWeight, ...] = Field(
        default=(),
        description="Sources that are not taken once; `qwenops review` makes them; house choice: the report's review.",
    )
    instruction_sources: tuple[str, ...] = Field(
        default=(), description="Sources that hold multi-task instructions as plain text, a bucket of their own, §3.1."
    )
    instruction_share: float = Field(
        default=0.02,
        ge=0,
        lt=1,
        description="Share of training tokens from them; house choice: the report gives no figure.",
    )

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "MixtureConfig":
        check_heads(self.hidden_size, self.num_heads)
        return self

    @model_validator(mode="after")
    def _a_step_holds_a_row(self) -> "MixtureConfig":
        self.training.check_row(self.context_length_tokens)
        return self
