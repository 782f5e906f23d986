"""`TrainingConfig`: how one training loop spends its steps. Shared by every stage that trains."""

from typing import Literal

from pydantic import Field

from qwenops.recipe.config import Config


class TrainingConfig(Config):
    """Steps, schedule, optimiser and precision of one call of `training.fit.fit`.

    The report does not publish pre-training rates, batches or the optimiser; defaults follow Qwen1's report
    where it says something and are house choices elsewhere.
    """

    steps: int = Field(1000, ge=1, description="Optimiser steps; house choice: set per recipe.")
    batch_tokens: int = Field(4_194_304, ge=1, description="Tokens of one step; house choice: Qwen1's 4 M.")
    learning_rate: float = Field(3e-4, gt=0, description="Peak rate; house choice: Qwen1's for its 7B model.")
    final_learning_rate: float = Field(
        3e-5, ge=0, description="Rate at the last step; house choice: a tenth of the peak, as in Qwen1."
    )
    warmup_steps: int = Field(2000, ge=0, description="Linear warm-up; house choice: Qwen1's technical memo.")
    schedule: Literal["wsd", "cosine", "linear", "constant"] = Field(
        "cosine", description="Shape after the warm-up; house choice: cosine as in Qwen1, the report names none."
    )
    decay_share: float = Field(
        0.2, ge=0, le=1, description="Share of the steps that `wsd` spends decaying; house choice: common practice."
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: Muon for matrices, AdamW for the rest; house choice: Qwen1 used AdamW."
    )
    weight_decay: float = Field(0.1, ge=0, description="Decoupled decay of matrices, §4.2.")
    clip_norm: float = Field(1.0, gt=0, description="Largest global gradient norm, §4.2.")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's first decay; house choice: Qwen1's.")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW's second decay; house choice: Qwen1's.")
    epsilon: float = Field(1e-8, gt=0, description="AdamW's epsilon; house choice: Qwen1's.")
    precision: Literal["bf16", "fp32"] = Field(
        "bf16",
        description="Autocast type, fp32 where the processor only emulates bf16; house choice: Qwen1 used bf16.",
    )
    spike_ratio: float = Field(
        3.0, gt=1, description="Stop when recent loss exceeds this many times the first; house choice: divergence."
    )
    checkpoint_every_steps: int = Field(
        500, ge=1, description="Steps between states to resume from; house choice: minutes of lost work at most."
    )
