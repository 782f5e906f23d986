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

# Two runs are compared on the same text, so its order does not depend on the run's seed.
_ORDER_SEED = 20_240_715


@dataclass(frozen=True)
class NeedleCell:
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


def heldout_text(shards: TokenShards, most: int) -> np.ndarray:
    """Held-out documents end to end in one fixed order, each once, int64 [n]; about `most` tokens.

    Not `packed`, whose shares would repeat a small domain inside one long row, and a repetition is easy to predict.
    """
    documents = list(shards.documents("heldout"))
    kept, found = [], 0
    for place in np.random.default_rng(_ORDER_SEED).permutation(len(documents)):
        kept.append(np.asarray(documents[place], dtype=np.int64))
        found += len(kept[-1])
        if found >= most:
            break
    return np.concatenate(kept)


def needle_rows_by_depth(
    tokenizer: object, text: np.ndarray, length: int, depths: Sequence[float], count: int, seed: int
) -> dict[float, NeedleRows]:
    """`count` rows of `length` tokens for each depth."""
    return {
        depth: needle_rows(
            tokenizer, text, length=length, count=count, seed=(seed, length, place), split="heldout", depths=(depth,)
        )
        for place, depth in enumerate(depths)
    }


def text_windows(text: np.ndarray, trained: int, longest: int, num_tokens: int) -> np.ndarray:
    """Windows of text, int64 [n, longest + 1], whose last `trained` targets are scored, `num_tokens` together.

    Raises:
        ContractError: there is too little text to score that many different tokens.
    """
    count = -(-num_tokens // trained)
    if len(text) < longest + 1 + (count - 1) * trained:
        raise ContractError(
            "too little held-out text to score",
            expected=f"{longest + 1 + (count - 1) * trained} tokens",
            found=len(text),
            action="score fewer tokens, evaluate at smaller multiples or hold out more text",
        )
    starts = np.linspace(0, len(text) - longest - 1, count).astype(int)
    return np.stack([text[start : start + longest + 1] for start in starts])


def score_needles(
    model: PreTrainedModel, rows: Mapping[float, NeedleRows], mode: str, multiple: int
) -> Iterator[NeedleCell]:
    """One cell per depth; the model is in `mode` already."""
    for depth, made in rows.items():
        score = evaluate_needles(model, made)
        yield NeedleCell(mode, multiple, depth, score.accuracy, score.count)


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
