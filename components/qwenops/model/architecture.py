"""A size as a transformers config. The model itself is transformers' Qwen2; there is no second one here."""

from typing import Any

from transformers import PretrainedConfig, Qwen2Config, Qwen2MoeConfig

from qwenops.errors import RecipeError
from qwenops.model.published import PUBLISHED
from qwenops.model.sizes import Experts, Size

SHARED_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "initializer_range",
    "tie_word_embeddings",
    "rope_parameters",
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
"""Config fields that a model of the family takes over unchanged from the one it is made from."""


def model_config(
    size: Size, *, rope_theta: float = 10_000.0, max_position_embeddings: int = 4096, initializer_range: float = 0.02
) -> PretrainedConfig:
    """Return the config of a Qwen2 (or, when the size has experts, Qwen2-MoE) model.

    Args:
        size: Dimensions.
        rope_theta: RoPE base; 10,000 until the long-context phase, 1,000,000 after it (section 3.2).
        max_position_embeddings: Training length in tokens.
        initializer_range: Standard deviation of fresh weights.
    """
    common: dict[str, Any] = {
        "vocab_size": size.vocab_rows,
        "hidden_size": size.hidden_size,
        "num_hidden_layers": size.num_layers,
        "num_attention_heads": size.num_query_heads,
        "num_key_value_heads": size.num_kv_heads,
        "intermediate_size": size.intermediate_size,
        "tie_word_embeddings": size.tied_embeddings,
        "rms_norm_eps": size.rms_norm_epsilon,
        "initializer_range": initializer_range,
        "max_position_embeddings": max_position_embeddings,
        "rope_parameters": {"rope_type": "default", "rope_theta": float(rope_theta)},
        "use_sliding_window": False,
    }
    if size.experts is None:
        return Qwen2Config(**common)
    # Probabilities are taken before the top k are chosen and not renormalised, as in the released model.
    return Qwen2MoeConfig(
        **common,
        num_experts=size.experts.num_experts,
        num_experts_per_tok=size.experts.num_active,
        moe_intermediate_size=size.experts.expert_width,
        shared_expert_intermediate_size=size.experts.shared_width,
        norm_topk_prob=False,
    )


def size_of(config: Any) -> Size:
    """The dimensions of a Qwen2-like model, dense or a mixture: `model_config` backwards."""
    experts = None
    if getattr(config, "num_experts", 0):
        experts = Experts(
            num_experts=config.num_experts,
            num_active=config.num_experts_per_tok,
            expert_width=config.moe_intermediate_size,
            shared_width=config.shared_expert_intermediate_size,
        )
    return Size(
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        num_query_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        intermediate_size=config.intermediate_size,
        vocab_rows=config.vocab_size,
        tied_embeddings=config.tie_word_embeddings,
        rms_norm_epsilon=config.rms_norm_eps,
        experts=experts,
    )


def published_config(name: str) -> PretrainedConfig:
    """Return the config of a released model, for example `qwen2_7b` or `qwen1_5_moe_a2_7b`.

    Raises:
        RecipeError: no released model has that name.
    """
    if name not in PUBLISHED:
        raise RecipeError(
            "unknown model", expected=f"one of {', '.join(PUBLISHED)}", found=name, action="choose one of them"
        )
    found = PUBLISHED[name]
    return model_config(found.size, rope_theta=found.rope_theta, max_position_embeddings=found.trained_length)
