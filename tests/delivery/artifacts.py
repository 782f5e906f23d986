"""Published artifacts for the delivery tests: a small untrained Qwen2, its tokenizer, token shards, manifests."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from qwenops.contracts.manifest import Manifest, digest_files, write_manifest
from qwenops.contracts.tokens import CONTROL_TOKENS, TokenIndex, write_index, write_shard
from qwenops.model.checkpoints import save_checkpoint

TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def publish(folder: Path, node: str, metrics: Mapping[str, float] | None = None, **facts: object) -> Path:
    """Write a manifest for what lies in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, object] = {
        "fingerprint": node.ljust(64, "0"),
        "artifact_id": f"{node}-id",
        "parents": {},
        "records": 10,
        "counts": {},
        "metrics": dict(metrics or {}),
        "warnings": (),
        "seconds": 1.0,
        "config": {},
        "code_version": "0.1.0+test",
        "created_at": "2026-01-01T00:00:00+00:00",
        "inputs": {},
    }
    write_manifest(folder, Manifest(node=node, files=digest_files(folder), **(values | facts)))
    return folder


def make_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=260, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(["a short text, a short text"], trainer)
    tokenizer.add_special_tokens(list(CONTROL_TOKENS))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.save_pretrained(folder)
    publish(folder, "tokenizer")
    return fast


def make_tokens(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    rng = np.random.default_rng(0)
    documents = [[*rng.integers(0, 200, 40).tolist(), end] for _ in range(10)]
    shards = {
        name: write_shard(folder, name, documents, ["en"] * 10, 400, "uint16") for name in ("train-web", "heldout-web")
    }
    write_index(
        folder,
        TokenIndex(
            vocabulary=len(tokenizer),
            dtype="uint16",
            end_of_text=end,
            weights={"web": 1.0},
            shards=shards,
            heldout_languages={"en": {"tokens": 410, "bytes": 400}},
        ),
    )
    return publish(folder, "tokens")


def make_checkpoint(folder: Path, tokenizer: PreTrainedTokenizerFast, *, tied: bool = True) -> Path:
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        )
    )
    save_checkpoint(model, tokenizer, folder, 64, 1000, parent="sft", kind="chat")
    return publish(folder, "online", {"pass_rate": 0.5, "kl.final": 0.1})
