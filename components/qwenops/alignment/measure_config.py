"""`MeasureConfig`: on which held-out questions, and how, the alignment stages measure a policy."""

from pydantic import Field

from qwenops.recipe.config import Config


class MeasureConfig(Config):
    """Held-out verifiable questions, answered greedily and by sampling. Equal in every stage, so figures compare."""

    prompts: int = Field(
        default=500,
        ge=1,
        description="Held-out questions; house choice: a standard error of 0.022 at a pass rate of 0.5.",
    )
    kinds: tuple[str, ...] = Field(
        default=(), description="Task kinds to ask; house choice: empty asks all that the held-out demonstrations hold."
    )
    max_new_tokens: int = Field(
        default=512, ge=1, description="Longest answer; house choice: the inference example's 512."
    )
    temperature: float = Field(
        default=1.0, gt=0, description="Of the sampled answers; house choice: the policy itself."
    )
    batch_tokens: int = Field(
        default=65_536, ge=1, description="Cached tokens per batch; house choice: the engine's default."
    )
