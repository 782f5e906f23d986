"""A model folder in the layout in which Qwen2 was published, of toy size, written by transformers and by hand.

The published files are older than the transformers of today: `rope_theta` and `torch_dtype` at the top of
`config.json`, the control tokens behind the vocabulary in `tokenizer_config.json`, and more rows in the embedding than
tokens.
"""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2TokenizerFast

SIZE = {
    "hidden_size": 64,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_kv_heads": 2,
    "intermediate_size": 160,
    "vocab_rows": 640,
}
LONGEST, BASE = 131_072, 1_000_000.0
TOKENS = 480
_CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_stock(folder: Path, *, tied: bool, shard_size: str, seed: int = 0) -> Path:
    """Fill `folder` with weights in bfloat16 drawn from `seed`, in files of at most `shard_size`, and a tokenizer."""
    tokens = _write_tokenizer(folder)
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=SIZE["vocab_rows"],
        hidden_size=SIZE["hidden_size"],
        intermediate_size=SIZE["intermediate_size"],
        num_hidden_layers=SIZE["num_layers"],
        num_attention_heads=SIZE["num_query_heads"],
        num_key_value_heads=SIZE["num_kv_heads"],
        max_position_embeddings=LONGEST,
        rope_parameters={"rope_type": "default", "rope_theta": BASE},
        tie_word_embeddings=tied,
        initializer_range=0.1,
    )
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:  # fresh biases are zero, which would hide that one is lost
            for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                projection.bias.normal_(std=0.1)
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=shard_size)
    published = {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": tokens,
        "eos_token_id": tokens,
        "hidden_act": "silu",
        "hidden_size": SIZE["hidden_size"],
        "initializer_range": 0.1,
        "intermediate_size": SIZE["intermediate_size"],
        "max_position_embeddings": LONGEST,
        "max_window_layers": SIZE["num_layers"],
        "model_type": "qwen2",
        "num_attention_heads": SIZE["num_query_heads"],
        "num_hidden_layers": SIZE["num_layers"],
        "num_key_value_heads": SIZE["num_kv_heads"],
        "rms_norm_eps": 1e-06,
        "rope_theta": BASE,
        "sliding_window": LONGEST,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.1",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": SIZE["vocab_rows"],
    }
    _write(folder / "config.json", published)
    ending = {"bos_token_id": tokens, "do_sample": False, "eos_token_id": tokens, "max_new_tokens": 2048}
    _write(folder / "generation_config.json", ending)
    return folder


def _write_tokenizer(folder: Path) -> int:
    """Write the tokenizer's four files; returns the number of its tokens without control tokens."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=TOKENS, initial_alphabet=letters, show_progress=False)
    learner.train_from_iterator([Path(json.__file__).read_text(), Path(torch.__file__).read_text()], trainer)
    plain = json.loads(learner.to_str())["model"]
    merges = [tuple(pair) for pair in plain["merges"]]
    made = Qwen2TokenizerFast(vocab=plain["vocab"], merges=merges, eos_token=_CONTROLS[0], pad_token=_CONTROLS[0])
    made.add_special_tokens({"additional_special_tokens": list(_CONTROLS[1:])})
    made.save_pretrained(folder)
    _write(folder / "vocab.json", plain["vocab"])
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    ids = {made.convert_tokens_to_ids(token): token for token in _CONTROLS}
    settings = {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(number): {"content": token, **flags} for number, token in sorted(ids.items())},
        "additional_special_tokens": list(_CONTROLS[1:]),
        "bos_token": None,
        "chat_template": _TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": _CONTROLS[0],
        "errors": "replace",
        "model_max_length": 32_768,
        "pad_token": _CONTROLS[0],
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    _write(folder / "tokenizer_config.json", settings)
    return len(plain["vocab"])


def _write(path: Path, plain: dict) -> None:
    path.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
