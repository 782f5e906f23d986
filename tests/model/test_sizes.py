import pytest
import torch
from tests.model.small import random_ids, small_model
from transformers import AutoModelForCausalLM, Qwen2MoeConfig

from qwenops.errors import RecipeError
from qwenops.model.architecture import model_config, published_config
from qwenops.model.published import PUBLISHED
from qwenops.model.sizes import SIZES, count_parameters

# Report, Table 1; exact counts from the published configs: (total, without embeddings).
REPORTED = {
    "qwen2_0_5b": (494_032_768, 357_898_112),
    "qwen2_1_5b": (1_543_714_304, 1_310_340_608),
    "qwen2_7b": (7_615_616_512, 6_525_621_760),
    "qwen2_72b": (72_706_203_648, 70_214_787_072),
    "qwen2_57b_a14b": (57_408_658_944, 56_319_581_696),
}
# Sizes as the older models' names and cards state them, in billions of parameters.
NAMED = {
    "qwen1_1_8b": 1.84,
    "qwen1_7b": 7.72,
    "qwen1_14b": 14.17,
    "qwen1_72b": 72.29,
    "qwen1_5_0_5b": 0.46,
    "qwen1_5_4b": 3.95,
    "qwen1_5_32b": 32.51,
    "qwen1_5_110b": 111.21,
    "qwen1_5_moe_a2_7b": 14.32,
}


def on_meta(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("name", REPORTED)
def test_published_size_has_the_published_number_of_parameters(name):
    size = SIZES[name]()
    counted = count_parameters(size)
    assert (counted.total, counted.non_embedding) == REPORTED[name]
    model = on_meta(model_config(size))
    assert sum(parameter.numel() for parameter in model.parameters()) == counted.total


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_released_model_builds_with_the_counted_parameters(name):
    config, found = published_config(name), PUBLISHED[name]
    model, counted = on_meta(config), count_parameters(found.size)
    assert sum(parameter.numel() for parameter in model.parameters()) == counted.total
    if name in NAMED:
        assert round(counted.total / 1e9, 2) == NAMED[name]
    attention = model.model.layers[0].self_attn
    assert all(getattr(attention, f"{part}_proj").bias is not None for part in "qkv")
    assert attention.o_proj.bias is None
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is found.size.tied_embeddings


def test_qwen1_is_multi_head_untied_and_short():
    for name in ("qwen1_1_8b", "qwen1_7b", "qwen1_14b", "qwen1_72b"):
        config = published_config(name)
        assert config.num_key_value_heads == config.num_attention_heads
        assert not config.tie_word_embeddings
        assert (config.max_position_embeddings, config.rope_parameters["rope_theta"]) == (2048, 10_000.0)


def test_qwen2_configs_carry_the_trained_length_and_the_long_base():
    inputs = {name: PUBLISHED[name].longest_input for name in REPORTED}
    assert inputs == {
        "qwen2_0_5b": 32_768,
        "qwen2_1_5b": 32_768,
        "qwen2_7b": 131_072,
        "qwen2_72b": 131_072,
        "qwen2_57b_a14b": 65_536,
    }
    config = published_config("qwen2_57b_a14b")
    assert isinstance(config, Qwen2MoeConfig)
    assert (config.max_position_embeddings, config.rope_parameters["rope_theta"]) == (32_768, 1_000_000.0)
    assert (config.num_experts, config.num_experts_per_tok, config.norm_topk_prob) == (64, 8, False)


def test_unknown_model_is_refused_by_name():
    with pytest.raises(RecipeError, match="qwen2_57b_a14b"):
        published_config("qwen2_13b")


def test_active_parameters_of_57b_a14b_are_about_fourteen_billion():
    size = SIZES["qwen2_57b_a14b"]()
    active = count_parameters(size).active
    assert round(active / 1e9, 2) == 13.16
    # With both embeddings, as the name counts them.
    assert round((active + 2 * size.vocab_rows * size.hidden_size) / 1e9, 2) == 14.25


def test_kv_cache_holds_two_vectors_per_layer_and_kv_head():
    model, length = small_model(), 10
    cache = model(random_ids(1, length), use_cache=True).past_key_values
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert held == length * 2 * 2 * 2 * 16
