"""Rows for training: packing, padding, shifted labels.

Packed rows hold several documents. `position_ids` restart at every document; transformers derives the
block-diagonal attention from those restarts when no attention mask is given, so that documents that share a
row do not see each other.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from qwenops.training.parallel import local_rows
from qwenops.training.terms import IGNORE_INDEX, Batch


@dataclass(frozen=True)
class Example:
    """One document or conversation.

    Attributes:
        tokens: Token ids.
        loss_mask: For each token whether it is a target (an assistant's word, or every token of plain text).
    """

    tokens: Sequence[int]
    loss_mask: Sequence[bool]


def shift_labels(labels: Tensor) -> Tensor:
    """Turn labels aligned with inputs (transformers' convention) into "what comes next" labels, same shape."""
    return torch.cat([labels[..., 1:], torch.full_like(labels[..., :1], IGNORE_INDEX)], dim=-1)


def text_batch(rows: np.ndarray, weights: np.ndarray | None = None, documents: Sequence[str] | None = None) -> Batch:
    """A language-modelling batch from whole rows.

    Args:
        rows: Integer [rows, length + 1]: the inputs and, one to the right, what to predict.
        weights: float [rows, length] loss weight of each target; None weighs all the same.
        documents: Names of the documents in the rows, for the message when a step breaks.

    Returns:
        input_ids and labels int64 [rows, length], `weights` and `documents` where given, `num_tokens`.
    """
    ids = torch.from_numpy(rows.astype(np.int64))
    batch: Batch = {"input_ids": ids[:, :-1], "labels": ids[:, 1:], "num_tokens": ids[:, 1:].numel()}
    if weights is not None:
        batch["weights"] = torch.from_numpy(weights.astype(np.float32))
    if documents is not None:
        batch["documents"] = documents
    return batch


def pad_batch(examples: Sequence[Example], pad_id: int) -> Batch:
    """One example per row, padded on the right.

    Returns:
        input_ids, labels (shifted, `IGNORE_INDEX` on padding and prompt) and attention_mask, int64 [rows, longest];
        `num_tokens` counts real tokens.
    """
    longest = max(len(example.tokens) for example in examples)
    input_ids = torch.full((len(examples), longest), pad_id, dtype=torch.int64)
    aligned = torch.full_like(input_ids, IGNORE_INDEX)
    mask = torch.zeros_like(input_ids)
    for row, example in enumerate(examples):
        _place(example, input_ids[row], aligned[row], 0)
        mask[row, : len(example.tokens)] = 1
    return {
        "input_ids": input_ids,
        "labels": shift_labels(aligned),
        "attention_mask": mask,
        "num_tokens": int(mask.sum()),
    }


def pack_batch(rows: Sequence[Sequence[Example]], length: int, pad_id: int) -> Batch:
    """Several examples per row, each seeing only itself.

    Args:
        rows: Examples of each row; together at most `length` tokens (see `plan_packing`).
        length: Tokens of a row.
        pad_id: Fills the end of a row, as an example of its own without targets.

    Returns:
        input_ids, labels (shifted) and position_ids (restarting), int64 [rows, length]; `num_tokens` counts real
        tokens. No attention mask: the restarts carry the borders.
    """
    input_ids = torch.full((len(rows), length), pad_id, dtype=torch.int64)
    aligned = torch.full_like(input_ids, IGNORE_INDEX)
    positions = torch.zeros_like(input_ids)
    real = 0
    for row, examples in enumerate(rows):
        start = 0
        for example in examples:
            size = _place(example, input_ids[row], aligned[row], start)
            # The first token of an example must not be the target of the one before it.
            aligned[row, start] = IGNORE_INDEX
            positions[row, start : start + size] = torch.arange(size)
            start += size
        positions[row, start:] = torch.arange(length - start)
        real += start
    return {
        "input_ids": input_ids,
        "labels": shift_labels(aligned),
        "position_ids": positions,
        "num_tokens": real,
    }


def plan_packing(examples: Iterable[Example], length: int) -> list[list[Example]]:
    """Fill rows of `length` tokens first-fit by falling size; examples longer than a row are left out."""
    fitting = [example for example in examples if 0 < len(example.tokens) <= length]
    rows: list[list[Example]] = []
    space: list[int] = []
    for example in sorted(fitting, key=lambda item: -len(item.tokens)):
        size = len(example.tokens)
        row = next((index for index, left in enumerate(space) if left >= size), None)
        if row is None:
            rows.append([])
            space.append(length)
            row = len(rows) - 1
        rows[row].append(example)
        space[row] -= size
    return rows


def packed_epochs(
    examples: Sequence[Example], *, length: int, rows_per_batch: int, pad_id: int, seed: int, start_step: int = 0
) -> Iterator[Batch]:
    """Endless packed batches: every epoch holds every row once, in an order drawn from (seed, epoch).

    The rows of a step depend on (examples, seed, step) only, so a resumed loop continues at `start_step`; of several
    workers each takes its part of them.
    """
    rows = plan_packing(examples, length)
    if not rows:
        return
    for step in range(start_step, 2**62):
        first = step * rows_per_batch
        chosen = [place_in_epochs(index, len(rows), seed) for index in range(first, first + rows_per_batch)]
        yield pack_batch([rows[index] for index in local_rows(chosen)], length, pad_id)


def place_in_epochs(index: int, count: int, seed: int) -> int:
    """Which of `count` things stands at `index` of an endless stream that holds each once per epoch, shuffled."""
    epoch, place = divmod(index, count)
    return int(_shuffled(count, seed, epoch)[place])


@lru_cache(maxsize=4)  # a step may reach from one epoch into the next, and two streams run beside each other
def _shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


def _place(example: Example, ids: Tensor, aligned: Tensor, start: int) -> int:
    size = len(example.tokens)
    tokens = torch.tensor(example.tokens, dtype=torch.int64)
    ids[start : start + size] = tokens
    aligned[start : start + size] = torch.where(torch.tensor(example.loss_mask, dtype=torch.bool), tokens, IGNORE_INDEX)
    return size
