"""What pre-training and extension read: packed text, mixed with rows that hide a needle.

The report trains on text alone, on trillions of tokens. A tiny model sees a few million, and text alone teaches it no
retrieval; needle rows do (`tasks.needles`). A recipe at report scale has none.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qwenops.contracts.tokens import PackedRow, TokenShards
from qwenops.pretraining.phases import Phase, Practice
from qwenops.tasks.needles import needle_rows
from qwenops.training.batching import text_batch
from qwenops.training.fit import Batches
from qwenops.training.terms import Batch

_FILLER_TOKENS = 1 << 20
_FILLER_ROW = 4096
LONG_SEED = 1_000_003


@dataclass(frozen=True)
class RowSource:
    """Makes the batches of a training loop; the batch of a step depends on these fields and the step only.

    Attributes:
        text: Packed text.
        tokenizer: Its tokenizer, for the needles' sentences.
        phases: Lengths in the order they are trained.
        practice: Share and weight of the needles.
        batch_tokens: Tokens of a step; a step has `batch_tokens // length` rows.
        seed: Draws text order and needles.
        rank: This worker; it takes every `world_size`-th row of each step.
        world_size: Workers.
        long_share: Share of the text rows that are made of long documents alone.
        long_tokens: Tokens from which a document is long.
    """

    text: TokenShards
    tokenizer: Any
    phases: Sequence[Phase]
    practice: Practice
    batch_tokens: int
    seed: int
    rank: int = 0
    world_size: int = 1
    long_share: float = 0.0
    long_tokens: int = 0

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def length_at(self, step: int) -> int:
        """Tokens of a row of that step."""
        ends = itertools.accumulate(phase.steps for phase in self.phases)
        return next(phase.length for phase, end in zip(self.phases, ends, strict=True) if step < end)

    def batches(self) -> Batches:
        """The `batches` argument of `training.fit.fit`."""
        filler = filler_tokens(self.text, "train", self.seed)

        def from_step(start: int) -> Iterator[Batch]:
            first = 0
            for phase in self.phases:
                if start < first + phase.steps:
                    yield from self._phase(phase, first, max(start - first, 0), filler)
                first += phase.steps

        return from_step

    def _phase(self, phase: Phase, first: int, done: int, filler: np.ndarray) -> Iterator[Batch]:
        rows = max(self.batch_tokens // phase.length, 1)
        needles = round(rows * self.practice.needle_share)
        texts = rows - needles
        packed = self._text_rows(phase.length, self.seed + first, done * texts)
        for step in range(first + done, first + phase.steps):
            drawn = [next(packed) for _ in range(texts)]
            pieces = [np.stack([row.ids for row in drawn]).astype(np.int64)] if texts else []
            weights = [np.ones((texts, phase.length), dtype=np.float32)]
            if needles:
                made = needle_rows(
                    self.tokenizer, filler, length=phase.length, count=needles, seed=(self.seed, step), split="train"
                )
                pieces.append(made.tokens)
                weights.append(made.loss_weights(self.practice.answer_weight))
            mine = slice(self.rank, None, self.world_size)
            documents = sorted({name for row in drawn[mine] for name in row.names})
            sources = [row.domain for row in drawn] + ["needles"] * needles
            names, numbers = np.unique(sources, return_inverse=True)
            yield text_batch(np.concatenate(pieces)[mine], np.concatenate(weights)[mine], documents) | {
                "domains": torch.from_numpy(numbers[mine]),
                "domain_names": names.tolist(),
            }

    def _text_rows(self, length: int, seed: int, start_row: int) -> Iterator[PackedRow]:
        """Rows of text; those of long documents lie evenly among them, so that every stretch holds their share."""
        long_before = math.floor(start_row * self.long_share)
        usual = self.text.packed("train", length + 1, seed, start_row - long_before)
        # Under one seed both streams would take their domains in the same order, and a batch would hold half as many.
        long = self.text.packed("train", length + 1, seed + LONG_SEED, long_before, least_tokens=self.long_tokens)
        for row in itertools.count(start_row):
            is_long = math.floor((row + 1) * self.long_share) > math.floor(row * self.long_share)
            yield next(long if is_long else usual)


def filler_tokens(text: TokenShards, split: str, seed: int, most: int = _FILLER_TOKENS) -> np.ndarray:
    """Up to `most` tokens of running text of a split, int64 [n]: the haystack around needles."""
    rows, found = [], 0
    for row in text.packed(split, _FILLER_ROW, seed):
        rows.append(row.ids.astype(np.int64))
        found += len(row.ids)
        if found >= most:
            break
    return np.concatenate(rows)
