"""Rotary position embedding: the base change, YaRN, and YaRN's attention temperature, as edits of a config.

transformers computes the frequencies of every kind itself, so a long-context setting is a config and the rotary module
is rebuilt from it; we only keep the two formulas that Dual Chunk Attention needs apart from a config.

Report: section 3.2 (base 10,000 to 1,000,000; YaRN) and 2.2.1 ("YARN to rescale the attention weights").
"""

import copy
import functools
import math

import torch
from transformers import PretrainedConfig, PreTrainedModel

from qwenops.errors import RecipeError


def change_base(model: PreTrainedModel, rope_theta: float, max_position_embeddings: int) -> None:
    """Give `model` another RoPE base and length, in place, for the long-context phase (section 3.2); its weights stay.

    The config stays the one object that every layer holds. Beside a copy of it they would keep the attention that was
    set before, and neither rows divided over workers nor attention by document would reach them.
    """
    model.config.rope_parameters = {"rope_type": "default", "rope_theta": float(rope_theta)}
    model.config.max_position_embeddings = max_position_embeddings
    old = model.model.rotary_emb
    model.model.rotary_emb = type(old)(config=model.config).to(old.inv_freq.device)


def with_yarn(config: PretrainedConfig, factor: float, original_length_tokens: int) -> PretrainedConfig:
    """A copy of `config` with YaRN for sequences `factor` times longer than those trained on.

    Args:
        config: Config with plain RoPE.
        factor: Target length over trained length, at least 1; 1 gives plain RoPE back.
        original_length_tokens: Length the weights were trained at. It is also written as `max_position_embeddings`,
            because older transformers take the correction range from there.

    Returns:
        The copy; cos and sin carry the temperature, so logits are multiplied by its square.
    """
    if factor < 1:
        raise RecipeError(
            "YaRN cannot shorten a context",
            expected="a factor of at least 1",
            found=factor,
            action="use plain RoPE up to the trained length",
        )
    edited = copy.deepcopy(config)
    edited.max_position_embeddings = original_length_tokens
    theta = config.rope_parameters["rope_theta"]
    edited.rope_parameters = (
        {"rope_type": "default", "rope_theta": theta}
        if factor == 1
        else {
            "rope_type": "yarn",
            "rope_theta": theta,
            "factor": float(factor),
            "original_max_position_embeddings": original_length_tokens,
        }
    )
    return edited


def temperature(length_tokens: int, original_length_tokens: int) -> float:
    """YaRN's m(n) = max(1, 0.1 ln(n / original) + 1); attention logits are multiplied by m squared."""
    return max(1.0, 0.1 * math.log(length_tokens / original_length_tokens) + 1.0)


@functools.lru_cache(maxsize=8)
def rotation_table(rope_theta: float, head_dim: int, num_positions: int, device: torch.device) -> torch.Tensor:
    """Cosines and sines of plain RoPE for positions 0 to `num_positions` - 1, half-split layout.

    Returns:
        float32, shape [2, num_positions, head_dim]: cos, then sin. In float32 even under autocast, because the angles
        of far positions do not fit bfloat16.
    """
    # A table first asked for in inference mode must serve training later.
    with torch.inference_mode(False), torch.no_grad():
        inverse = 1.0 / (rope_theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim))
        angles = torch.arange(num_positions, dtype=torch.float32, device=device)[:, None] * inverse
        return torch.stack((torch.cat((angles, angles), -1).cos(), torch.cat((angles, angles), -1).sin()))


def rotate(x: torch.Tensor, positions: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Rotate `x` [..., S, D] to `positions` [S] with a `rotation_table`; computed in float32, returned in x's dtype."""
    cos, sin = table[:, positions]
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return (x * cos + turned * sin).to(x.dtype)
