import pytest
import torch
from tests.model.small import TRAINED, logits, random_ids, small_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from qwenops.errors import RecipeError, StageError
from qwenops.model.dual_chunk import DualChunk
from qwenops.model.modes import MODES, apply_mode, apply_request, long_context_mode
from qwenops.model.rope import temperature, with_yarn
from qwenops.model.sizes import Experts

EXPERTS = Experts(num_experts=4, num_active=2, expert_width=32, shared_width=32)
# Logits of these models are around 10; attention in another order of sums moves them by up to 1e-5.
TOLERANCE = 1e-4


@pytest.mark.parametrize("experts", [None, EXPERTS], ids=["dense", "moe"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_equals_the_stock_model_up_to_the_trained_length(mode, experts):
    model, ids = small_model(experts=experts), random_ids(2, TRAINED)
    stock = logits(model, ids)
    with long_context_mode(model, mode, TRAINED):
        torch.testing.assert_close(logits(model, ids), stock, rtol=0, atol=TOLERANCE)
    assert torch.equal(logits(model, ids), stock)


def test_modes_differ_from_each_other_beyond_the_trained_length():
    model, ids = small_model(), random_ids(1, 3 * TRAINED)
    outputs = {}
    for mode in MODES:
        with long_context_mode(model, mode, ids.shape[1]):
            outputs[mode] = logits(model, ids)[:, -8:]
    for mode in MODES:
        for other in MODES:
            assert mode == other or (outputs[mode] - outputs[other]).abs().max() > 1e-2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("use_cache", [False, True])
def test_autocast_to_bfloat16_only_rounds(mode, use_cache):
    model, ids = small_model(), random_ids(1, 2 * TRAINED)
    with long_context_mode(model, mode, ids.shape[1]):
        exact = logits(model, ids)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = logits(model, ids, use_cache=use_cache)
    assert torch.nn.functional.cosine_similarity(exact, rounded.float(), dim=-1).min() > 0.99


def test_leaving_a_mode_restores_the_stock_model_exactly():
    model, ids = small_model(), random_ids(1, 3 * TRAINED)
    stock, config = logits(model, ids), model.config.to_dict()
    for mode in MODES:
        apply_mode(model, mode, ids.shape[1])
    apply_mode(model, "plain", ids.shape[1])
    assert torch.equal(logits(model, ids), stock)
    assert model.config.to_dict() == config


def test_temperature_multiplies_logits_by_its_square():
    model = small_model()
    scale = model.model.layers[0].self_attn.scaling
    with long_context_mode(model, "dca", 4 * TRAINED):
        assert model.model.layers[1].self_attn.scaling == pytest.approx(scale * temperature(4, 1) ** 2)
    with long_context_mode(model, "dca_raw", 4 * TRAINED):
        assert model.model.layers[1].self_attn.scaling == scale


@pytest.mark.parametrize("steps", [1, 20])
def test_decoding_from_the_cache_equals_one_prefill(steps):
    model, ids = small_model(), random_ids(2, 3 * TRAINED)
    with long_context_mode(model, "dca", ids.shape[1], scheme=DualChunk(TRAINED, 16)), torch.inference_mode():
        whole = model(ids).logits
        state = model(ids[:, :-steps], use_cache=True)
        pieces = [state.logits]
        for place in range(ids.shape[1] - steps, ids.shape[1]):
            state = model(ids[:, place : place + 1], past_key_values=state.past_key_values, use_cache=True)
            pieces.append(state.logits)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("padding", [1, 37])
def test_left_padded_rows_equal_rows_alone(padding):
    model, ids = small_model(), random_ids(2, 3 * TRAINED)
    padded = torch.cat((torch.zeros(2, padding, dtype=torch.int64), ids), 1)
    mask = torch.ones_like(padded)
    mask[0, :padding] = 0
    with long_context_mode(model, "dca", padded.shape[1]):
        together = logits(model, padded, attention_mask=mask)
        alone = logits(model, ids[:1]), logits(model, padded[1:])
    torch.testing.assert_close(together[:1, padding:], alone[0], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(together[1:], alone[1], rtol=0, atol=TOLERANCE)


def test_padding_between_tokens_is_refused():
    model, ids = small_model(), random_ids(1, 20)
    mask = torch.ones_like(ids)
    mask[0, 5] = 0
    with long_context_mode(model, "dca", 20), pytest.raises(StageError, match="holes"):
        logits(model, ids, attention_mask=mask)


def test_generation_in_dca_continues_as_step_by_step_argmax():
    model, ids = small_model(), random_ids(1, 2 * TRAINED)
    with long_context_mode(model, "dca", 2 * TRAINED + 4):
        generated = model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0, eos_token_id=None)
        for _ in range(4):
            ids = torch.cat((ids, logits(model, ids)[:, -1:].argmax(-1)), 1)
    assert torch.equal(generated, ids)


def test_unknown_mode_is_refused():
    with pytest.raises(RecipeError, match="unknown long-context mode"):
        apply_mode(small_model(), "ntk", 10)


def other_family(config_class, model_class, **settings):
    torch.manual_seed(0)
    config = config_class(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=TRAINED,
        initializer_range=0.2,
        **settings,
    )
    return model_class._from_config(config, attn_implementation="sdpa").eval()


@pytest.mark.parametrize(
    ("config_class", "model_class", "settings"),
    [(LlamaConfig, LlamaForCausalLM, {}), (MistralConfig, MistralForCausalLM, {"sliding_window": None})],
    ids=["llama", "mistral"],
)
@pytest.mark.parametrize("mode", MODES)
def test_modes_serve_llama_like_models_too(mode, config_class, model_class, settings):
    model, ids = other_family(config_class, model_class, **settings), random_ids(1, 3 * TRAINED)
    short, long = logits(model, ids[:, :TRAINED]), logits(model, ids)
    with long_context_mode(model, mode, TRAINED):
        torch.testing.assert_close(logits(model, ids[:, :TRAINED]), short, rtol=0, atol=TOLERANCE)
    with long_context_mode(model, mode, ids.shape[1]):
        assert mode == "plain" or (logits(model, ids) - long).abs().max() > 1e-2
    assert torch.equal(logits(model, ids), long)


def test_request_within_the_trained_length_reads_exactly_as_without_a_mode():
    model, ids = small_model(), random_ids(1, 2 * TRAINED)
    short = logits(model, ids[:, :TRAINED])
    for mode in ("yarn", "dca"):
        apply_request(model, mode, ids.shape[1], TRAINED)
        long = logits(model, ids)
        apply_mode(model, mode, ids.shape[1])
        assert torch.equal(logits(model, ids), long)
        apply_request(model, mode, TRAINED, TRAINED)
        assert torch.equal(logits(model, ids[:, :TRAINED]), short)


def test_static_yarn_of_the_config_reads_like_the_yarn_mode():
    model, ids = small_model(), random_ids(1, 4 * TRAINED)
    apply_mode(model, "yarn", 4 * TRAINED)
    by_mode = logits(model, ids)
    stock = type(model)._from_config(with_yarn(small_model().config, 4.0, TRAINED), attn_implementation="sdpa").eval()
    stock.load_state_dict(model.state_dict())
    torch.testing.assert_close(logits(stock, ids), by_mode, rtol=0, atol=TOLERANCE)
    apply_mode(stock, "plain", 4 * TRAINED)
    assert torch.equal(logits(stock, ids), logits(small_model(), ids))


def test_training_in_dca_after_reading_in_dca_moves_every_weight():
    model, ids = small_model(), random_ids(2, 3 * TRAINED)
    mask = torch.ones_like(ids)
    mask[0, :20] = 0
    with long_context_mode(model, "dca", ids.shape[1]):
        seen = logits(model, ids, attention_mask=mask)
        found = model(ids, attention_mask=mask).logits
        found[mask.bool()].logsumexp(-1).mean().backward()
    torch.testing.assert_close(found[mask.bool()], seen[mask.bool()], rtol=0, atol=TOLERANCE)
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_model_without_rotary_embeddings_is_refused():
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=300))
    with pytest.raises(RecipeError, match="no long-context modes"):
        apply_mode(model, "dca", 10)


def test_model_with_another_rope_scaling_is_refused():
    scaled = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(RecipeError, match="scaled in another way"):
        apply_mode(other_family(LlamaConfig, LlamaForCausalLM, rope_parameters=scaled), "dca", 10)
