"""Gradient accumulation: a step's batch in pieces that fit into memory, with the gradient of the whole."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from qwenops.errors import RecipeError


def split_by_tokens(batch: dict[str, Any], most_tokens: int) -> Sequence[dict[str, Any]]:
    """Cut a batch of rows with labels into batches of at most `most_tokens` tokens each, at least one row.

    `num_tokens` stays with the first piece, since only its sum is used.

    Raises:
        RecipeError: the batch is no batch of rows with labels.
    """
    if "labels" not in batch or "input_ids" not in batch:
        raise RecipeError(
            "this objective's batches cannot be split",
            expected="training.micro_batch_tokens 0, or batches with input_ids and labels",
            found=sorted(batch),
            action="leave micro_batch_tokens at 0 for this stage",
        )
    count, length = batch["input_ids"].shape
    rows = max(most_tokens // length, 1)
    if rows >= count:
        return [batch]
    pieces = [_cut(batch, slice(first, first + rows), count) for first in range(0, count, rows)]
    for index, piece in enumerate(pieces):
        piece["num_tokens"] = batch["num_tokens"] if index == 0 else 0
    return pieces


def _cut(batch: dict[str, Any], rows: slice, count: int) -> dict[str, Any]:
    return {
        key: value[rows] if isinstance(value, Tensor) and value.ndim and len(value) == count else value
        for key, value in batch.items()
    }
