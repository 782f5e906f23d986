"""What pre-training and extension are judged by: loss on held-out text, bits per byte by language, needles."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from qwenops.contracts.tokens import Ids, TokenShards
from qwenops.pretraining.rows import filler_tokens
from qwenops.tasks.needles import NeedleRows, needle_rows
from qwenops.training.batching import text_batch
from qwenops.training.fit import Batch
from qwenops.training.objective import mean_loss

# Held-out rows never depend on the run's seed: two runs are compared on the same text.
HELD_OUT_SEED = 20_240_715
_BATCH_TOKENS = 8192


def text_rows(shards: TokenShards, length: int, num_tokens: int) -> list[Batch]:
    """Held-out text as rows of `length` tokens, at most about `num_tokens` and never the same token twice."""
    rows = max(min(num_tokens, shards.tokens("heldout")) // (length + 1), 1)
    packed = shards.packed("heldout", length + 1, HELD_OUT_SEED)
    return _batches(np.stack([next(packed)[0] for _ in range(rows)]))


def held_out_needles(shards: TokenShards, tokenizer: Any, length: int, count: int) -> NeedleRows:
    """Needle rows of held-out words in held-out text."""
    text = filler_tokens(shards, "heldout", HELD_OUT_SEED, most=shards.tokens("heldout"))
    return needle_rows(tokenizer, text, length=length, count=count, seed=HELD_OUT_SEED, split="heldout")


def bits_per_byte(model: nn.Module, shards: TokenShards, length: int, tokens_per_language: int) -> dict[str, float]:
    """Held-out bits per UTF-8 byte of every language; lower is better and tokenizers can be compared.

    Documents of a language lie end to end and are cut to rows of `length`. Bytes of a cut-off sample are taken in
    proportion to its tokens.
    """
    return {
        language: _bits_per_byte(model, documents, bytes_of_text, length, tokens_per_language)
        for language, (documents, bytes_of_text) in shards.heldout_by_language().items()
        if sum(map(len, documents)) > 1
    }


def language_metrics(values: Mapping[str, float]) -> dict[str, float]:
    """`bits_per_byte.<language>` metrics."""
    return {f"bits_per_byte.{language}": value for language, value in values.items()}


def _bits_per_byte(model: nn.Module, documents: Sequence[Ids], bytes_of_text: int, length: int, most: int) -> float:
    tokens = np.concatenate([np.asarray(document, dtype=np.int64) for document in documents])
    bytes_per_token = bytes_of_text / len(tokens)
    tokens = tokens[:most]
    row = min(length, len(tokens) - 1)
    count = (len(tokens) - 1) // row
    rows = np.lib.stride_tricks.sliding_window_view(tokens, row + 1)[::row][:count]
    nats_per_token = mean_loss(model, _batches(rows))
    return nats_per_token / math.log(2) / bytes_per_token


def _batches(rows: np.ndarray) -> list[Batch]:
    per_batch = max(_BATCH_TOKENS // rows.shape[1], 1)
    return [text_batch(rows[start : start + per_batch]) for start in range(0, len(rows), per_batch)]
