import json

import pytest
import torch
from safetensors.torch import load_file
from tests.delivery.artifacts import make_tokenizer
from tests.model.small import TRAINED, logits, random_ids, small_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from qwenops.contracts.checkpoint import CheckpointFacts, read_facts
from qwenops.contracts.manifest import file_digest
from qwenops.errors import ContractError
from qwenops.model.checkpoints import load_model, load_tokenizer, save_checkpoint
from qwenops.model.rope import change_base, with_yarn
from qwenops.model.sizes import Experts

EXPERTS = Experts(num_experts=4, num_active=2, expert_width=24, shared_width=96)
KINDS = {"tied": {"tied": True}, "untied": {"tied": False}, "moe": {"tied": False, "experts": EXPERTS}}


@pytest.fixture
def tokenizer(tmp_path):
    return make_tokenizer(tmp_path / "tokenizer")


@pytest.mark.parametrize("kind", KINDS)
def test_saved_folder_gives_stock_transformers_the_same_model(tmp_path, tokenizer, kind):
    model, ids = small_model(**KINDS[kind]), random_ids(2, 40)
    save_checkpoint(model, tokenizer, tmp_path / "out", TRAINED, 1000, parent="pretrain")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert (logits(stock, ids) - logits(model, ids)).abs().max() < 1e-4
    options = {"max_new_tokens": 32, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    assert torch.equal(stock.generate(ids, **options), model.generate(ids, **options))
    assert AutoTokenizer.from_pretrained(tmp_path / "out").encode("short text") == tokenizer.encode("short text")


@pytest.mark.parametrize("kind", KINDS)
def test_saving_what_was_loaded_gives_the_same_bytes(tmp_path, tokenizer, kind):
    save_checkpoint(small_model(**KINDS[kind]), tokenizer, tmp_path / "a", TRAINED, 1000)
    save_checkpoint(load_model(tmp_path / "a"), load_tokenizer(tmp_path / "a"), tmp_path / "b", TRAINED, 1000)
    assert file_digest(tmp_path / "a/model.safetensors") == file_digest(tmp_path / "b/model.safetensors")
    assert read_facts(tmp_path / "a") == read_facts(tmp_path / "b") == CheckpointFacts(TRAINED, 1e4, 1000, "")


def test_experts_are_written_one_by_one_under_their_hub_names(tmp_path, tokenizer):
    save_checkpoint(small_model(experts=EXPERTS), tokenizer, tmp_path / "out", TRAINED, 0)
    names = load_file(tmp_path / "out/model.safetensors")
    assert names["model.layers.1.mlp.experts.3.gate_proj.weight"].shape == (24, 64)
    assert names["model.layers.1.mlp.experts.3.down_proj.weight"].shape == (64, 24)
    assert names["model.layers.0.mlp.shared_expert_gate.weight"].shape == (1, 64)
    assert not any("gate_up" in name for name in names)


def test_config_carries_the_names_older_readers_use(tmp_path, tokenizer):
    model = small_model()
    change_base(model, 1e6, 64)
    model.config.rope_parameters = with_yarn(model.config, 4.0, 64).rope_parameters
    save_checkpoint(model, tokenizer, tmp_path / "out", 64, 0, kind="chat", dtype=torch.bfloat16)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert (config["rope_theta"], config["torch_dtype"], config["model_type"]) == (1e6, "bfloat16", "qwen2")
    assert config["rope_scaling"]["type"] == "yarn"
    assert config["rope_scaling"]["original_max_position_embeddings"] == 64
    generation = json.loads((tmp_path / "out/generation_config.json").read_text())
    turn, end = (tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>"))
    assert generation["eos_token_id"] == [turn, end]
    assert config["eos_token_id"] == turn
    assert all(tensor.dtype == torch.bfloat16 for tensor in load_file(tmp_path / "out/model.safetensors").values())
    assert model.dtype == torch.float32


def test_folder_without_weights_is_refused_by_name(tmp_path, tokenizer):
    save_checkpoint(small_model(), tokenizer, tmp_path / "out", TRAINED, 0)
    (tmp_path / "out/model.safetensors").unlink()
    with pytest.raises(ContractError, match=r"model\.safetensors"):
        load_model(tmp_path / "out")


def test_folder_whose_base_disagrees_with_its_facts_is_refused(tmp_path, tokenizer):
    save_checkpoint(small_model(), tokenizer, tmp_path / "out", TRAINED, 0)
    facts = json.loads((tmp_path / "out/checkpoint.json").read_text())
    (tmp_path / "out/checkpoint.json").write_text(json.dumps(facts | {"rope_theta": 1e6}))
    with pytest.raises(ContractError, match="RoPE base"):
        read_facts(tmp_path / "out")


def test_tokenizer_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ContractError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
