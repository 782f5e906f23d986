"""Config of the reward stage."""

from typing import Literal

from pydantic import Field

from qwenops.recipe.config import Config
from qwenops.training.config import TrainingConfig

_QWEN1 = TrainingConfig(
    learning_rate=3e-6, final_learning_rate=3e-6, warmup_steps=0, schedule="constant", batch_tokens=64 * 2 * 2048
)


class RewardConfig(Config):
    """A reward model of the policy's size: preference-model pre-training on all pairs, then the best pairs."""

    pretraining: Literal["run", "skip"] = Field(
        default="run", description="Pre-training on all pairs first; house choice: Qwen1's first phase (3.2.1)."
    )
    pretraining_pairs: int = Field(
        default=500_000, ge=1, description="Pairs the first phase sees; house choice: its size is not published."
    )
    pairs: int = Field(
        default=100_000,
        ge=1,
        description="Pairs the fine-tuning sees; house choice: one epoch in Qwen1, size not published.",
    )
    pairs_per_step: int = Field(default=64, ge=1, description="Pairs of one step; house choice: Qwen1's batch (3.2.1).")
    quality_strategies: tuple[str, ...] = Field(
        default=("ranked",), description="Strategies whose pairs the fine-tuning uses; house choice: empty uses all."
    )
    training: TrainingConfig = Field(
        default=_QWEN1, description="Constant 3e-6; house choice: Qwen1's (3.2.1), steps follow from the pairs."
    )
    max_length_tokens: int = Field(
        default=2048, ge=16, description="Longest prompt with response; house choice: Qwen1's."
    )
    balance: Literal["tags", "none"] = Field(
        default="tags", description="Sample prompts evenly over tags; house choice: Qwen1's balanced sampling (3.2.1)."
    )
    tag_cap_share: float = Field(
        default=0.2, gt=0, le=1, description="Largest share of the draws one tag may take; house choice: not published."
    )
    most_repeats: float = Field(
        default=3.0,
        ge=1,
        description="Largest weight of a pair, in mean weights; house choice: repeats are learnt by heart.",
    )
    heldout_pairs: int = Field(
        default=1000, ge=1, description="Most held-out pairs measured; house choice: a standard error of 0.013 at 0.8."
    )
