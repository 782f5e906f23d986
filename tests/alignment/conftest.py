"""A byte-level tokenizer, a Qwen2 of a few thousand parameters, and the artifacts that alignment stages read."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from qwenops.contracts.conversation import read_conversations, write_conversations
from qwenops.contracts.manifest import Manifest, digest_files, write_manifest
from qwenops.contracts.preference import Preference, write_preferences
from qwenops.model.checkpoints import save_checkpoint
from qwenops.platform.launch.execute import execute
from qwenops.recipe.codec import canonical
from qwenops.tasks.verifiable import generate


def byte_tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]})
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    return tokenizer


def small_model(seed=0):
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.08,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    return Qwen2ForCausalLM(config).eval()


@pytest.fixture(scope="session")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture
def model():
    return small_model()


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Nothing here tries a second thread: a fork of a process that had one waits for it for ever."""
    torch.set_num_threads(1)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})


def publish(folder, node):
    """Make `folder` an artifact that `execute` accepts as an input."""
    manifest = Manifest(
        node=node,
        fingerprint=node,
        artifact_id=node,
        parents={},
        files=digest_files(folder),
        records=0,
        counts={},
        metrics={},
        warnings=(),
        seconds=0.0,
        config={},
        code_version="test",
        created_at="now",
        inputs={},
    )
    write_manifest(folder, manifest)
    return folder


@pytest.fixture
def artifacts(tmp_path, tokenizer):
    """Published stand-ins: `base`, `demonstrations`, `ranked`, `synthesized`."""
    made = {name: tmp_path / "inputs" / name for name in ("base", "demonstrations", "ranked", "synthesized")}
    for folder in made.values():
        folder.mkdir(parents=True)
    save_checkpoint(small_model(), tokenizer, made["base"], 128, 0)
    questions = generate("copy", 40, 1, "train") + generate("copy", 12, 1, "heldout")
    write_conversations(made["demonstrations"], questions)
    answered = read_conversations(made["demonstrations"], "train")[:6]
    for name in ("ranked", "synthesized"):
        rows = [replace(row, id=name + row.id, strategy=name) for row in answered]
        write_conversations(made[name], rows)
        write_preferences(made[name], [wrong_pair(name, row, place) for place, row in enumerate(rows)])
    return {name: publish(folder, name) for name, folder in made.items()}


def wrong_pair(strategy, row, place):
    return Preference(
        id=f"{strategy}{place}",
        prompt=row.prompt,
        chosen=row.response,
        rejected="no",
        source="verifiable",
        strategy=strategy,
        judge="machine:test",
        split="heldout" if place == 0 else "train",
        verifier=row.verifier,
    )


@pytest.fixture
def run_stage(tmp_path, monkeypatch):
    """Run an alignment stage by name through `execute`, as both backends do."""
    for name in ("store", "events", "cache"):
        monkeypatch.setenv(f"QWENOPS_{name.upper()}", str(tmp_path / name))

    def run(stage, config, inputs, node=None):
        text = canonical({"node": node or stage, "seed": 7, "config": config.model_dump(mode="json")})
        return execute(f"alignment.{stage}", text, {name: Path(path) for name, path in inputs.items()})

    return run
