"""Needle accuracy by length, depth and mode, and text loss by length and mode.

Every mode sees the same rows. Text loss is taken on the same target tokens at every length, too: a row of k times
the trained length ends where the row of the trained length ends, and only its last trained length is scored. So a
difference along a row of the table is the mode, and one along a column is the longer context; neither is other text.

The needle is asked for in the manner of a base model: the row ends in the question, and a hit means that the greedy
continuation is the number (`tasks.needles`). The report's own grid has an instruct model and an unpublished scorer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from qwenops.contracts.tokens import TokenShards
from qwenops.errors import ContractError
from qwenops.tasks.needles import NeedleRows, evaluate_needles, needle_rows
from qwenops.training.loss import chunked_cross_entropy, hidden_states, output_weight

_HAYSTACK_ROWS = 64


@dataclass(frozen=True)
class Cell:
    """Accuracy of one mode at one length and depth, and the needles behind it."""

    mode: str
    multiple: int
    depth: float
    accuracy: float
    needles: int


@dataclass(frozen=True)
class TextLoss:
    """Loss (nats per token) of one mode at one length, and the tokens behind it."""

    mode: str
    multiple: int
    loss: float
    tokens: int


def haystack(shards: TokenShards, length: int, seed: int) -> np.ndarray:
    """Held-out text for rows of up to `length` tokens, int64 [n], at least twice as long as a row."""
    rows = shards.packed("heldout", length + 1, seed)
    return np.concatenate([next(rows)[0] for _ in range(_HAYSTACK_ROWS)]).astype(np.int64)


def rows_by_depth(
    tokenizer: object, text: np.ndarray, length: int, depths: Sequence[float], count: int, seed: int
) -> dict[float, NeedleRows]:
    """`count` rows of `length` tokens for each depth."""
    return {
        depth: needle_rows(
            tokenizer, text, length=length, count=count, seed=(seed, length, place), split="heldout", depths=(depth,)
        )
        for place, depth in enumerate(depths)
    }


def text_rows(shards: TokenShards, trained: int, longest: int, num_tokens: int, seed: int) -> np.ndarray:
    """Held-out rows int64 [n, longest + 1] of which the last `trained` targets are scored, `num_tokens` together.

    Raises:
        ContractError: there is less held-out text than one row.
    """
    if shards.tokens("heldout") <= longest:
        raise ContractError(
            "too little held-out text for the longest row", expected=f"more than {longest} tokens",
            found=shards.tokens("heldout"), action="evaluate at smaller multiples or hold out more text",
        )
    packed = shards.packed("heldout", longest + 1, seed)
    return np.stack([next(packed)[0] for _ in range(-(-num_tokens // trained))]).astype(np.int64)


def score_needles(model: PreTrainedModel, rows: Mapping[float, NeedleRows], mode: str, multiple: int) -> Iterator[Cell]:
    """One cell per depth; the model is in `mode` already."""
    for depth, made in rows.items():
        score = evaluate_needles(model, made)
        yield Cell(mode, multiple, depth, score.accuracy, score.count)


@torch.inference_mode()
def score_text(
    model: PreTrainedModel, rows: np.ndarray, *, trained: int, mode: str, multiple: int, batch_tokens: int = 16_384
) -> TextLoss:
    """Loss on each row's last `trained` targets, reading `multiple * trained` tokens of it."""
    length = multiple * trained
    inputs = torch.from_numpy(rows[:, -length - 1 :])
    losses = []
    for part in inputs.split(max(batch_tokens // length, 1)):
        part = part.to(model.device)
        hidden = hidden_states(model, part[:, :-1])[:, -trained:]
        loss = chunked_cross_entropy(hidden, output_weight(model), part[:, -trained:])
        losses += [float(loss)] * len(part)
    return TextLoss(mode, multiple, sum(losses) / len(losses), len(rows) * trained)
