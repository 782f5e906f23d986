"""`LongContextConfig`: lengths, modes and sizes of the long-context evaluation."""

from typing import Literal

from pydantic import Field

from qwenops.recipe.config import Config


class LongContextConfig(Config):
    """Needle grid and text loss, in multiples of the checkpoint's context length."""

    modes: tuple[Literal["plain", "temperature", "yarn", "dca_raw", "dca"], ...] = Field(
        default=("plain", "temperature", "yarn", "dca_raw", "dca"),
        description="Ways of reading long inputs; house choice: the two the report uses, with each half of DCA alone.",
    )
    multiples: tuple[int, ...] = Field(
        default=(1, 2, 4), description="Lengths in multiples of the trained one, §5.2.3 (32K trained, 128K evaluated)."
    )
    depths: tuple[float, ...] = Field(
        default=(0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95),
        description="Where needles stand, one depth per tenth of the row, §5.2.3.",
    )
    needles_per_depth: int = Field(
        default=10,
        ge=1,
        description="Needles per depth and length; house choice: with the report's 2 the error is 0.1.",
    )
    text_tokens: int = Field(
        default=65_536,
        ge=1,
        description="Held-out tokens scored per length and mode; house choice: an error near 0.01.",
    )
    local_share: float = Field(
        default=1 / 8,
        gt=0,
        lt=0.5,
        description="DCA's local window over the trained length; house choice: the report gives no value.",
    )
    precision: Literal["bf16", "fp32"] = Field(
        default="bf16", description="Type of weights and activations; house choice: what the models are served in."
    )
