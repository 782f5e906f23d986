import json
import math

import pytest
import torch
from tests.model.small import small_model
from transformers import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

from qwenops.errors import RecipeError
from qwenops.model.rope import change_base, rotate, rotation_table, temperature, with_yarn


def plain_config(hidden: int, heads: int, theta: float) -> Qwen2Config:
    return Qwen2Config(
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=32_768,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )


def written_out_yarn(dim: int, base: float, length: int, scale: float) -> tuple[torch.Tensor, float]:
    """YaRN as its reference code has it, written out."""
    theta = torch.tensor([base ** (-2 * j / dim) for j in range(dim // 2)])
    low, high = (dim * math.log(length / (2 * math.pi * turns)) / (2 * math.log(base)) for turns in (32, 1))
    low, high = max(math.floor(low), 0), min(math.ceil(high), dim - 1)
    ramp = torch.tensor([min(max((j - low) / (high - low), 0.0), 1.0) for j in range(dim // 2)])
    return theta * (1 - ramp) + theta / scale * ramp, 0.1 * math.log(scale) + 1


@pytest.mark.parametrize(("heads", "low", "high"), [(2, 23, 40), (4, 11, 20)])
def test_yarn_equals_the_published_formula(heads, low, high):
    config = plain_config(256, heads, 1e6)
    rotary = Qwen2RotaryEmbedding(with_yarn(config, 4.0, 32_768))
    expected, m = written_out_yarn(256 // heads, 1e6, 32_768, 4.0)
    torch.testing.assert_close(rotary.inv_freq, expected, rtol=1e-6, atol=0)
    assert rotary.attention_scaling == pytest.approx(m) == pytest.approx(1.1386, abs=1e-4)
    plain = Qwen2RotaryEmbedding(config).inv_freq
    assert torch.equal(rotary.inv_freq[: low + 1], plain[: low + 1])
    torch.testing.assert_close(rotary.inv_freq[high:], plain[high:] / 4)
    assert (rotary.inv_freq.diff() < 0).all()
    assert (rotary.inv_freq <= plain).all()
    assert (rotary.inv_freq >= plain / 4 * (1 - 1e-6)).all()


def test_yarn_of_factor_one_is_plain_rope():
    config = plain_config(256, 4, 1e6)
    rotary = Qwen2RotaryEmbedding(with_yarn(config, 1.0, 32_768))
    assert torch.equal(rotary.inv_freq, Qwen2RotaryEmbedding(config).inv_freq)
    assert rotary.attention_scaling == 1.0


def test_yarn_refuses_to_shorten():
    with pytest.raises(RecipeError, match="at least 1"):
        with_yarn(plain_config(256, 4, 1e6), 0.5, 32_768)


def test_base_change_turns_the_frequencies_and_leaves_every_layer_the_models_config():
    model = small_model()
    before = model.model.rotary_emb.inv_freq.clone()
    change_base(model, 1_000_000, 131_072)
    assert (model.config.rope_parameters["rope_theta"], model.config.max_position_embeddings) == (1e6, 131_072)
    torch.testing.assert_close(model.model.rotary_emb.inv_freq, before**1.5)
    model.set_attn_implementation("eager")
    assert {layer.self_attn.config._attn_implementation for layer in model.model.layers} == {"eager"}
    json.dumps(model.config.to_dict())


def test_temperature_is_one_up_to_the_trained_length_and_grows_beyond():
    assert temperature(1000, 32_768) == temperature(32_768, 32_768) == 1.0
    assert temperature(65_536, 32_768) == pytest.approx(1.0693, abs=1e-4)
    assert temperature(131_072, 32_768) ** 2 == pytest.approx(1.2965, abs=1e-4)


def test_rotation_table_rotates_as_transformers_does():
    model = small_model()
    x = torch.randn(1, 2, 10, 16, generator=torch.Generator().manual_seed(0))
    cos, sin = model.model.rotary_emb(x, torch.arange(10)[None])
    turned = torch.cat((-x[..., 8:], x[..., :8]), dim=-1)
    table = rotation_table(1e4, 16, 10, torch.device("cpu"))
    torch.testing.assert_close(rotate(x, torch.arange(10), table), x * cos[:, None] + turned * sin[:, None])
