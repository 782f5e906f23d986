"""Published tokenizer and token shards of a small corpus, and configs that train on it for a few steps."""

import pydoc_data.topics
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from qwenops.contracts.manifest import Manifest, digest_files, write_manifest
from qwenops.contracts.tokens import CONTROL_TOKENS, TokenIndex, encode_texts, write_index, write_shard
from qwenops.model.sizes import Size
from qwenops.pretraining.extend.config import ExtendConfig
from qwenops.pretraining.pretrain.config import PretrainConfig
from qwenops.pretraining.rows import Phase, Practice
from qwenops.training.config import TrainingConfig

VOCABULARY = 512
TRAINING = TrainingConfig(
    steps=10,
    batch_tokens=512,
    learning_rate=1e-2,
    final_learning_rate=1e-3,
    warmup_steps=2,
    schedule="wsd",
    optimizer="muon",
    checkpoint_every_steps=2,
)
PRETRAIN = PretrainConfig(
    size=Size(
        hidden_size=32,
        num_layers=2,
        num_query_heads=4,
        num_kv_heads=2,
        intermediate_size=48,
        vocab_rows=VOCABULARY,
        tied_embeddings=True,
    ),
    phases=(Phase(length=64, steps=6), Phase(length=128, steps=4)),
    practice=Practice(needle_share=0.25),
    training=TRAINING,
    evaluation_tokens=2048,
    evaluation_needles=8,
)
EXTEND = ExtendConfig(
    phases=(Phase(length=256, steps=10),),
    practice=Practice(needle_share=0.5),
    training=TRAINING,
    evaluation_tokens=2048,
    evaluation_needles=8,
)


def make_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d|\n+| ?[^\s\d]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.add_special_tokens(list(CONTROL_TOKENS))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.save_pretrained(folder)
    return fast


def make_artifacts(root: Path) -> dict[str, Path]:
    """Artifacts `tokenizer` and `tokens` under `root`; every eighth text is held out, in two "languages"."""
    tokenizer = make_tokenizer(root / "tokenizer")
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    texts = _texts()
    parts = {"train": [t for i, t in enumerate(texts) if i % 8], "heldout": texts[::8]}
    shards, languages = {}, {"en": {"tokens": 0, "bytes": 0}, "fr": {"tokens": 0, "bytes": 0}}
    for split, chosen in parts.items():
        documents = [[*ids, end] for ids in encode_texts(tokenizer, chosen)]
        marks = [("en", "fr")[i % 2] for i in range(len(chosen))]
        size = sum(len(text.encode()) for text in chosen)
        shards[f"{split}-web"] = write_shard(root / "tokens", f"{split}-web", documents, marks, size, "uint16")
        if split == "heldout":
            for text, ids, mark in zip(chosen, documents, marks, strict=True):
                languages[mark]["tokens"] += len(ids)
                languages[mark]["bytes"] += len(text.encode())
    write_index(root / "tokens", TokenIndex(len(tokenizer), "uint16", end, {"web": 1.0}, shards, languages))
    return {name: published(root / name, name) for name in ("tokenizer", "tokens")}


def _texts() -> list[str]:
    return [text for _, text in sorted(pydoc_data.topics.topics.items())]


def published(folder: Path, node: str) -> Path:
    """`folder` with the manifest that makes it an artifact of `node`."""
    write_manifest(
        folder,
        Manifest(
            node=node,
            fingerprint=node.ljust(64, "0"),
            artifact_id=f"{node}-id",
            parents={},
            files=digest_files(folder),
            records=1,
            counts={},
            metrics={},
            warnings=(),
            seconds=1.0,
            config={},
            code_version="0",
            created_at="",
        ),
    )
    return folder
