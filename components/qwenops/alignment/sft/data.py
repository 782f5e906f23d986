"""Which demonstrations SFT trains on, and as which batches."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from qwenops.alignment.examples import encode_row, pad_id_of
from qwenops.alignment.sft.config import SftConfig
from qwenops.contracts.conversation import Conversation, read_conversations
from qwenops.contracts.tokens import TokenShards
from qwenops.errors import ContractError
from qwenops.training.batching import Example, packed_epochs, plan_packing
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import Batches
from qwenops.training.parallel import local_rows
from qwenops.training.terms import Batch


@dataclass(frozen=True)
class TrainingSet:
    """Tokenized demonstrations and where the others went.

    Attributes:
        examples: What is packed, verifiable rows repeated as configured.
        read: Rows read.
        dropped: Rows left out, by reason.
        by_source: Rows used, by "source/strategy".
    """

    examples: list[Example]
    read: int
    dropped: dict[str, int]
    by_source: dict[str, int]


def read_demonstrations(*folders: Path | None) -> list[Conversation]:
    """All conversations of the folders that are given, each id once."""
    rows = {row.id: row for folder in folders if folder is not None for row in read_conversations(folder)}
    return list(rows.values())


def build_training_set(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Conversation], config: SftConfig
) -> TrainingSet:
    """Tokenize the rows to train on.

    Raises:
        ContractError: nothing is left.
    """
    dropped: Counter[str] = Counter()
    verifiable: list[Example] = []
    others: list[Example] = []
    by_source: Counter[str] = Counter()
    for row in rows:
        reason = "heldout" if row.split == "heldout" else "" if row.is_answered else "unanswered"
        example = encode_row(tokenizer, row) if not reason else Example((), ())
        reason = "too_long" if len(example.tokens) > config.max_length_tokens else reason
        if reason:
            dropped[reason] += 1
            continue
        by_source[f"{row.source}/{row.strategy}"] += 1
        (verifiable if row.verifier else others).append(example)
    if not verifiable and not others:
        raise ContractError(
            "no demonstrations to train on",
            expected="answered rows of the train split",
            found=dict(dropped),
            action="look at the instruction stages' rows, or raise max_length_tokens",
        )
    repeats = _repeats(_targets(verifiable), _targets(others), config.verifiable_share)
    return TrainingSet(verifiable * repeats + others, len(rows), dict(dropped), dict(sorted(by_source.items())))


def training_config(config: SftConfig, examples: Sequence[Example]) -> TrainingConfig:
    """The configured loop, its steps replaced by what the epochs need where `budget` says so."""
    if config.budget == "steps":
        return config.training
    packed = len(plan_packing(examples, config.max_length_tokens))
    steps = -(-packed * config.epochs // rows_per_batch(config)[0])
    return config.training.model_copy(update={"steps": max(steps, 1)})


def rows_per_batch(config: SftConfig) -> tuple[int, int]:
    """Rows of one step: of packed conversations, and of replayed text; at least one of each that is asked for."""
    rows = max(config.training.batch_tokens // config.max_length_tokens, 1)
    least = 1 if config.replay_share else 0
    replayed = min(max(round(rows * config.replay_share), least), rows - 1)
    return rows - replayed, replayed


def sft_batches(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    config: SftConfig,
    seed: int,
    text: TokenShards | None = None,
    text_seed: int = 0,
) -> Batches:
    """Packed batches from any step on, replayed text below the conversations where the config asks for it.

    Args:
        tokenizer: Names the padding.
        examples: What is packed.
        config: Lengths and shares.
        seed: Draws the order of the conversations.
        text: Pre-training text; needed for a `replay_share` only.
        text_seed: Draws the order of that text.
    """
    packed, replayed = rows_per_batch(config)

    def conversations(start: int) -> Iterator[Batch]:
        return packed_epochs(
            examples,
            length=config.max_length_tokens,
            rows_per_batch=packed,
            pad_id=pad_id_of(tokenizer),
            seed=seed,
            start_step=start,
        )

    if not replayed or text is None:
        return conversations

    def with_text(start: int) -> Iterator[Batch]:
        rows = text.packed("train", config.max_length_tokens + 1, text_seed, start * replayed)
        for batch in conversations(start):
            drawn = local_rows([row.ids for row in islice(rows, replayed)])
            yield append_replay(batch, np.stack(drawn))

    return with_text


def append_replay(batch: Batch, rows: np.ndarray) -> Batch:
    """A packed batch with rows of text below its own, bool [rows] `replay` telling them apart.

    Args:
        batch: What `pack_batch` made, of rows of `length` tokens.
        rows: Integer [rows, length + 1]: the inputs and, one to the right, what to predict.
    """
    ids = torch.from_numpy(rows.astype(np.int64))
    positions = torch.arange(ids.shape[1] - 1).expand(len(ids), -1)
    added = {"input_ids": ids[:, :-1], "labels": ids[:, 1:], "position_ids": positions}
    replay = torch.arange(len(batch["input_ids"]) + len(ids)) >= len(batch["input_ids"])
    joined = {name: torch.cat([batch[name], extra]) for name, extra in added.items()}
    return batch | joined | {"replay": replay, "num_tokens": batch["num_tokens"] + ids[:, 1:].numel()}


def _targets(examples: Sequence[Example]) -> int:
    return sum(sum(example.loss_mask) for example in examples)


def _repeats(verifiable: int, others: int, share: float) -> int:
    """How often verifiable examples are repeated so that their targets reach `share` of all."""
    if not verifiable or not others or share >= 1:
        return 1
    return max(1, -(-int(share * others) // int((1 - share) * verifiable + 1)))
