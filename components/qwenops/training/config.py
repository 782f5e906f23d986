"""`TrainingConfig`: how one training loop spends its steps. Shared by every stage that trains."""

from typing import Literal

from pydantic import Field

from qwenops.errors import RecipeError
from qwenops.recipe.config import Config

_PAIR_TOKENS = 16_384


class TrainingConfig(Config):
    """Steps, schedule, optimiser and precision of one call of `training.fit.fit`.

    The report does not publish pre-training rates, batches or the optimiser; defaults follow Qwen1's report
    where it says something and are house choices elsewhere.
    """

    steps: int = Field(default=1000, ge=1, description="Optimiser steps; house choice: set per recipe.")
    batch_tokens: int = Field(default=4_194_304, ge=1, description="Tokens of one step; house choice: Qwen1's 4 M.")
    learning_rate: float = Field(default=3e-4, gt=0, description="Peak rate; house choice: Qwen1's for its 7B model.")
    final_learning_rate: float = Field(
        default=3e-5, ge=0, description="Rate at the last step; house choice: a tenth of the peak, as in Qwen1."
    )
    warmup_steps: int = Field(default=2000, ge=0, description="Linear warm-up; house choice: Qwen1's technical memo.")
    schedule: Literal["wsd", "cosine", "linear", "constant"] = Field(
        default="cosine",
        description="Shape after the warm-up; house choice: cosine as in Qwen1, the report names none.",
    )
    decay_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Share of the steps that `wsd` spends decaying; house choice: common practice.",
    )
    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw", description="muon: Muon for matrices, AdamW for the rest; house choice: Qwen1 used AdamW."
    )
    weight_decay: float = Field(default=0.1, ge=0, description="Decoupled decay of matrices, §4.2.")
    clip_norm: float = Field(default=1.0, gt=0, description="Largest global gradient norm, §4.2.")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW's first decay; house choice: Qwen1's.")
    beta2: float = Field(default=0.95, ge=0, lt=1, description="AdamW's second decay; house choice: Qwen1's.")
    epsilon: float = Field(default=1e-8, gt=0, description="AdamW's epsilon; house choice: Qwen1's.")
    precision: Literal["bf16", "fp32"] = Field(
        default="bf16",
        description="Autocast type, fp32 where the processor only emulates bf16; house choice: Qwen1 used bf16.",
    )
    micro_batch_tokens: int = Field(
        default=0,
        ge=0,
        description="Most tokens of one forward pass; house choice: 0, a whole step, and 16,384 where a step is pairs.",
    )
    z_loss: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the squared log-partition; house choice: 0, it is no part of the recipe.",
    )
    recompute: Literal["none", "matmuls", "layers"] = Field(
        default="none",
        description="What backward computes again, see `recompute.py`; house choice: none while it fits.",
    )
    attention: Literal["masked", "by_document"] = Field(
        default="masked",
        description="How packed rows keep documents apart, by a mask or by a kernel call each; house choice: masked.",
    )
    compile: Literal["no", "layers"] = Field(
        default="no",
        description="torch.compile of each layer; house choice: no, it pays on GPUs and on long runs only.",
    )
    skip_ratio: float = Field(
        default=0.0,
        ge=0,
        description="Skip a step whose gradient norm exceeds this many recent medians, 0 never; house choice: 0.",
    )
    max_skips: int = Field(
        default=3,
        ge=0,
        description="Steps skipped in a row before a rollback; house choice: one bad batch is no divergence.",
    )
    max_rollbacks: int = Field(
        default=2,
        ge=0,
        description="Rollbacks after which the loop stops; house choice: the data is not to blame by then.",
    )
    spike_ratio: float = Field(
        default=3.0,
        gt=1,
        description="Roll back when recent loss exceeds this many times the first; house choice: divergence.",
    )
    checkpoint_every_steps: int = Field(
        default=500,
        ge=1,
        description="Steps between states to resume from; house choice: minutes of lost work at most.",
    )
    keep_checkpoints: int = Field(
        default=2, ge=1, description="States kept; house choice: the last, and one to fall back to when it is damaged."
    )

    @property
    def pair_tokens(self) -> int:
        """Most tokens of one forward pass over pairs: both sides of a pair stand in one pass, so pairs are not cut."""
        return self.micro_batch_tokens or _PAIR_TOKENS

    def check_row(self, length: int) -> None:
        """Check that a step holds at least one row of `length` tokens.

        Raises:
            ValueError: it does not.
        """
        if self.batch_tokens < length:
            raise ValueError(f"training.batch_tokens of at least one row, {length}: not {self.batch_tokens}")


def check_attention(attention: str, context: int) -> None:
    """Check that rows which `context` workers share are kept apart in a way that reaches over all of them.

    Raises:
        RecipeError: attention by document sees the stretch of one worker alone.
    """
    if attention == "by_document" and context > 1:
        raise RecipeError(
            "attention by document does not reach over the workers that share a row",
            expected="training.attention masked, or a mesh with context 1",
            found=f"by_document with context {context}",
            action="set training.attention=masked: context parallelism keeps documents apart itself",
        )
