"""Which demonstrations SFT trains on, and as which batches."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from qwenops.alignment.examples import encode_row, pad_id_of
from qwenops.alignment.sft.config import SftConfig
from qwenops.contracts.conversation import Conversation, read_conversations
from qwenops.errors import ContractError
from qwenops.training.batching import Example, packed_epochs, plan_packing
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import Batches


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
    rows = len(plan_packing(examples, config.max_length_tokens))
    steps = -(-rows * config.epochs // rows_per_batch(config))
    return config.training.model_copy(update={"steps": max(steps, 1)})


def rows_per_batch(config: SftConfig) -> int:
    """Packed rows of one step."""
    return max(config.training.batch_tokens // config.max_length_tokens, 1)


def batches_of(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], config: SftConfig, seed: int
) -> Batches:
    """Packed batches from any step on."""
    return lambda start: packed_epochs(
        examples,
        length=config.max_length_tokens,
        rows_per_batch=rows_per_batch(config),
        pad_id=pad_id_of(tokenizer),
        seed=seed,
        start_step=start,
    )


def _targets(examples: Sequence[Example]) -> int:
    return sum(sum(example.learn) for example in examples)


def _repeats(verifiable: int, others: int, share: float) -> int:
    """How often verifiable examples are repeated so that their targets reach `share` of all."""
    if not verifiable or not others or share >= 1:
        return 1
    return max(1, -(-int(share * others) // int((1 - share) * verifiable + 1)))
