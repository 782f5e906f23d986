"""Config of the online stage."""

from typing import Literal

from pydantic import Field

from qwenops.alignment.measure_config import MeasureConfig
from qwenops.recipe.config import Config
from qwenops.training.config import TrainingConfig


class RewardSourceConfig(Config):
    """Where the reward of a sampled response comes from."""

    kind: Literal["model", "verifier", "sum"] = Field(
        default="model", description="The reward model (§4.3), the verifier, or both; house choice: sum if verifiable."
    )
    model_weight: float = Field(
        default=1.0, ge=0, description="Weight of the standardised model score; house choice: one."
    )
    verifier_weight: float = Field(
        default=2.0, ge=0, description="Reward of a verified answer; house choice: two deviations."
    )


class MergingConfig(Config):
    """The Online Merging Optimizer (§4.3; 2405.17931)."""

    merge: Literal["dare", "ties"] = Field(
        default="dare", description="OnDARE or OnTIES; house choice: OnDARE as released."
    )
    weight: float = Field(
        default=1e-7, ge=0, le=1, description="alpha, weight of SFT minus base; house choice: as released."
    )
    keep: float = Field(default=0.01, gt=0, le=1, description="p, share of entries kept; house choice: as released.")
    rescale: Literal["yes", "no"] = Field(
        default="yes",
        description="OnDARE divides kept entries by p and so goes AdamW's way; house choice: as released.",
    )
    every_steps: int = Field(default=1, ge=1, description="K of step-K merging; house choice: one keeps most reward.")


class GuardConfig(Config):
    """What counts as reward hacking; any of it restores the best policy so far."""

    max_kl: float = Field(
        default=0.2,
        gt=0,
        description="Largest divergence from the start in nats per token; house choice: see the README.",
    )
    max_pass_rate_drop: float = Field(
        default=0.05,
        ge=0,
        description="Largest fall of the verified pass rate below the best; house choice: two errors.",
    )
    max_length_ratio: float = Field(
        default=2.0,
        gt=1,
        description="Mean answer length over the start's, or its inverse; house choice: rewarded rambling.",
    )
    prompts: int = Field(
        default=200,
        ge=1,
        description="Training-split questions the guard asks and nobody trains on; house choice: seconds of work.",
    )
    proof: Literal["verifier", "reward"] = Field(
        default="reward",
        description="What must be better than the start's answers, question by question; house choice: the verifier"
        " where every question has one.",
    )
    significance: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Level of the paired sign test by which a policy must beat the start; house choice: the usual one.",
    )
    rate_factor: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Learning rate after a rollback; house choice: the same step would hack again.",
    )
    max_rollbacks: int = Field(
        default=3, ge=1, description="Rollbacks after which the stage ends; house choice: it is stuck."
    )


class PpoConfig(Config):
    """Qwen1's PPO (Qwen Technical Report, section 3.2.2)."""

    value_warmup_steps: int = Field(
        default=50, ge=0, description="Steps that train the value model only; house choice: Qwen1's."
    )
    kl_coefficient: float = Field(default=0.04, ge=0, description="Weight of the KL penalty; house choice: Qwen1's.")
    policy_learning_rate: float = Field(default=1e-6, gt=0, description="Policy's rate; house choice: Qwen1's.")
    value_learning_rate: float = Field(default=5e-6, gt=0, description="Value model's rate; house choice: Qwen1's.")
    value_clip: float = Field(default=0.15, gt=0, description="Clip of the value loss; house choice: Qwen1's.")
    policy_clip: float = Field(
        default=0.2, gt=0, description="Clip of the ratio; house choice: the usual value, unpublished."
    )
    discount: float = Field(default=1.0, gt=0, le=1, description="gamma of the advantages; house choice: unpublished.")
    trace: float = Field(default=0.95, ge=0, le=1, description="lambda of the advantages; house choice: unpublished.")
    pretraining_coefficient: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the demonstrations' own loss; house choice: Qwen1's value is unpublished.",
    )
    pretraining_rows: int = Field(
        default=64, ge=1, description="Demonstrations per step behind that loss; house choice: more text than rollouts."
    )
    passes: int = Field(
        default=1, ge=1, description="Passes over one episode's samples; house choice: nearly on-policy."
    )


class OnlineConfig(Config):
    """Online alignment: sample with the current policy, reward, learn, measure; repeat."""

    algorithm: Literal["dpo", "ppo"] = Field(
        default="dpo", description="Best-against-worst DPO (§4.3), or Qwen1's PPO."
    )
    episodes: int = Field(default=100, ge=1, description="Rounds of sampling and learning; house choice: unpublished.")
    prompts: Literal["all", "verifiable"] = Field(
        default="all", description="Which training prompts are sampled; house choice: all of them."
    )
    screened_prompts: int = Field(
        default=0,
        ge=0,
        description="Prompts that the start answers first, to keep those in `solved_share`; house choice: 0, none.",
    )
    solved_share: tuple[float, float] = Field(
        default=(0.2, 0.8),
        description="Least and largest share of right responses of a screened prompt; house choice: beyond them a"
        " prompt's responses are alike and make no pair.",
    )
    prompts_per_episode: int = Field(default=512, ge=1, description="Prompts of one round; house choice: unpublished.")
    samples: int = Field(
        default=8,
        ge=2,
        description="Responses per prompt, of which best and worst make a pair (§4.3); two for PPO in Qwen1.",
    )
    temperature: float = Field(default=1.0, gt=0, description="Of the sampling; house choice: the policy itself.")
    top_p: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Of the sampling; house choice: as in Qwen1's PPO, whose reward rose faster.",
    )
    cut_penalty: float = Field(
        default=1.0,
        ge=0,
        description="Taken from the reward of a response cut at the token limit, which is learnt without an end; "
        "house choice: one deviation of the reward, so that going on for ever does not pay.",
    )
    min_margin: float = Field(
        default=0.0, ge=0, description="Least reward gap of a pair; house choice: any difference."
    )
    beta: float = Field(
        default=0.1, gt=0, description="DPO's pull towards the reference; house choice: as in 2405.17931."
    )
    nll_weight: float = Field(
        default=0.0, ge=0, description="Weight of the best response's own loss; house choice: see dpo."
    )
    reference: Literal["fixed", "refreshed"] = Field(
        default="fixed", description="Reference: the start, or each round's policy; house choice: unpublished."
    )
    pairs_per_step: int = Field(default=128, ge=1, description="Pairs of one step; house choice: as in 2405.17931.")
    training: TrainingConfig = Field(
        default=TrainingConfig(learning_rate=1e-6, final_learning_rate=1e-6, warmup_steps=0, schedule="constant"),
        description="Rate, decay, clip of the policy's steps; house choice: 1e-6 as in 2405.17931.",
    )
    reward: RewardSourceConfig = Field(
        default=RewardSourceConfig(), description="Where a response's reward comes from; house choice: see there."
    )
    merging: MergingConfig = Field(default=MergingConfig(), description="The merging optimizer (§4.3).")
    guard: GuardConfig = Field(default=GuardConfig(), description="Reward-hacking guard; house choice: see there.")
    ppo: PpoConfig = Field(
        default=PpoConfig(), description="Used when `algorithm` is ppo; house choice: Qwen1's values."
    )
    compare_with: Literal["adamw", "none"] = Field(
        default="none", description="Repeat the run with plain AdamW; house choice: measures what merging saves."
    )
    max_length_tokens: int = Field(
        default=2048, ge=16, description="Longest prompt with response; house choice: related work."
    )
    max_new_tokens: int = Field(
        default=512, ge=1, description="Longest sampled response; house choice: as when measured."
    )
    measure: MeasureConfig = Field(
        default=MeasureConfig(), description="How the model is measured; house choice: see there."
    )
