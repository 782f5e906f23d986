"""What pre-training and extension are judged by: loss on held-out text, bits per byte by language, needles.

At a large size or length this takes minutes, so `evaluation_progress` counts the tokens on the stage's display.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from qwenops.contracts.tokens import Ids, TokenShards
from qwenops.platform.stage.handle import Stage
from qwenops.pretraining.rows import filler_tokens
from qwenops.tasks.needles import NeedleRows, needle_rows
from qwenops.training.batching import text_batch
from qwenops.training.objective import TokenCallback, mean_loss
from qwenops.training.parallel import worker_rank
from qwenops.training.terms import Batch

# Held-out rows never depend on the run's seed: two runs are compared on the same text.
HELD_OUT_SEED = 20_240_715
_BATCH_TOKENS = 8192


@dataclass(frozen=True)
class LanguageRows:
    """Held-out text of one language: rows, and the UTF-8 bytes that one of its tokens stands for."""

    batches: list[Batch]
    bytes_per_token: float


@contextmanager
def evaluation_progress(
    stage: Stage, note: str, *measured: Sequence[Batch] | NeedleRows | None
) -> Iterator[TokenCallback]:
    """What to hand on as `on_tokens` to whatever reads `measured`; rank 0 shows how far that is.

    The unit is one of its own, since the rate of `tokens` is that of training.
    """
    if worker_rank().rank:
        yield lambda tokens: None
        return
    with stage.progress(sum(map(_num_tokens, measured)), "held-out tokens") as progress:
        yield lambda tokens: progress.advance(tokens, note)


def text_rows(shards: TokenShards, length: int, num_tokens: int) -> list[Batch]:
    """Held-out text as rows of `length` tokens, at most about `num_tokens` and never the same token twice."""
    rows = max(min(num_tokens, shards.tokens("heldout")) // (length + 1), 1)
    packed = shards.packed("heldout", length + 1, HELD_OUT_SEED)
    return _batches(np.stack([next(packed).ids for _ in range(rows)]))


def held_out_needles(shards: TokenShards, tokenizer: Any, length: int, count: int) -> NeedleRows:
    """Needle rows of held-out words in held-out text."""
    text = filler_tokens(shards, "heldout", HELD_OUT_SEED, most=shards.tokens("heldout"))
    return needle_rows(tokenizer, text, length=length, count=count, seed=HELD_OUT_SEED, split="heldout")


def language_rows(shards: TokenShards, length: int, tokens_per_language: int) -> dict[str, LanguageRows]:
    """Held-out text by language, its documents end to end and cut to rows of `length`.

    Bytes of a cut-off sample are taken in proportion to its tokens.
    """
    return {
        language: _language_rows(documents, bytes_of_text, length, tokens_per_language)
        for language, (documents, bytes_of_text) in shards.heldout_by_language().items()
        if sum(map(len, documents)) > 1
    }


def bits_per_byte(
    model: nn.Module, languages: Mapping[str, LanguageRows], on_tokens: TokenCallback | None = None
) -> dict[str, float]:
    """Metric `bits_per_byte.<language>` of every language; lower is better and tokenizers can be compared."""
    return {
        f"bits_per_byte.{language}": mean_loss(model, rows.batches, on_tokens) / math.log(2) / rows.bytes_per_token
        for language, rows in languages.items()
    }


def _language_rows(documents: Sequence[Ids], bytes_of_text: int, length: int, most: int) -> LanguageRows:
    tokens = np.concatenate([np.asarray(document, dtype=np.int64) for document in documents])
    bytes_per_token = bytes_of_text / len(tokens)
    tokens = tokens[:most]
    row = min(length, len(tokens) - 1)
    count = (len(tokens) - 1) // row
    rows = np.lib.stride_tricks.sliding_window_view(tokens, row + 1)[::row][:count]
    return LanguageRows(_batches(rows), bytes_per_token)


def _num_tokens(rows: Sequence[Batch] | NeedleRows | None) -> int:
    if rows is None:
        return 0
    return rows.num_tokens if isinstance(rows, NeedleRows) else sum(batch["num_tokens"] for batch in rows)


def _batches(rows: np.ndarray) -> list[Batch]:
    per_batch = max(_BATCH_TOKENS // rows.shape[1], 1)
    return [text_batch(rows[start : start + per_batch]) for start in range(0, len(rows), per_batch)]
