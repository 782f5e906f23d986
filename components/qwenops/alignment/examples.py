"""From conversations and preferences to token rows: the loss mask, and batches of pairs.

The loss lies on what the assistant says and on the `<|im_end|>` that closes it (report 4.2; the exact mask is a house
choice after Qwen1, which masks system and user inputs). A turn's text is tokenized apart from what stands before it,
because that is how it is met at inference: after a generation prompt.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from qwenops.contracts.conversation import Conversation, Message
from qwenops.contracts.preference import Preference
from qwenops.generation.chat import render
from qwenops.model.checkpoints import END_OF_TEXT, IM_END
from qwenops.training.batching import Example, pad_batch
from qwenops.training.parallel import own_rows
from qwenops.training.terms import Batch

# A row may be padded to this many times its length and a few tokens: beyond it another forward pass is cheaper.
_MOST_PADDING, _FREE_PADDING = 1.25, 8


@dataclass(frozen=True)
class Pair:
    """A tokenized preference.

    Attributes:
        chosen: Prompt and better response.
        rejected: Prompt and worse response.
        reference: Log-probabilities of both under the reference policy, where they came with the pair.
    """

    chosen: Example
    rejected: Example
    reference: tuple[float, float] = (0.0, 0.0)

    @property
    def size(self) -> int:
        """Tokens of the longer side."""
        return max(len(self.chosen.tokens), len(self.rejected.tokens))


def encode_conversation(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> Example:
    """Tokenize a conversation; every assistant turn and its `<|im_end|>` are targets, nothing else is."""
    tokens: list[int] = []
    learn: list[bool] = []
    done = ""
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(messages[:place])
        spoken = message["content"] + IM_END
        for text, is_target in ((before[len(done) :], False), (spoken, True)):
            ids = _tokenize(tokenizer, text)
            tokens += ids
            learn += [is_target] * len(ids)
        done = before + spoken
    return Example(tokens, learn)


def encode_response(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], response: str) -> Example:
    """Tokenize one response to a prompt; only the response and its `<|im_end|>` are targets."""
    before = _tokenize(tokenizer, render(prompt))
    spoken = _tokenize(tokenizer, response + IM_END)
    return Example(before + spoken, [False] * len(before) + [True] * len(spoken))


def encode_pair(tokenizer: PreTrainedTokenizerBase, row: Preference) -> Pair:
    """Tokenize both sides of a preference."""
    return Pair(*(encode_response(tokenizer, row.prompt, text) for text in (row.chosen, row.rejected)))


def encode_conversations(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Conversation], max_length_tokens: int
) -> tuple[list[Example], int]:
    """Tokenize the answered rows; returns the examples that fit and how many were too long."""
    examples = [encode_conversation(tokenizer, row.messages) for row in rows if row.is_answered]
    fitting = [example for example in examples if len(example.tokens) <= max_length_tokens]
    return fitting, len(examples) - len(fitting)


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Preference], max_length_tokens: int
) -> tuple[list[Pair], list[Preference]]:
    """Tokenize preferences; returns the pairs that fit and the rows they came from."""
    pairs = [(encode_pair(tokenizer, row), row) for row in rows]
    fitting = [(pair, row) for pair, row in pairs if pair.size <= max_length_tokens]
    return [pair for pair, _ in fitting], [row for _, row in fitting]


def pair_batch(pairs: Sequence[Pair], pad_id: int) -> Batch:
    """Pairs as one padded batch: the chosen sides in the upper half of the rows, the rejected in the lower.

    Returns:
        What `pad_batch` returns for 2 x pairs rows, and `reference` float [2 x pairs].
    """
    sides = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    batch = pad_batch(sides, pad_id)
    references = [pair.reference[0] for pair in pairs] + [pair.reference[1] for pair in pairs]
    return batch | {"reference": torch.tensor(references)}


def micro_batches(pairs: Sequence[Pair], pad_id: int, most_tokens: int) -> list[Batch]:
    """One step's pairs as padded batches of pairs of similar length, each of at most `most_tokens` or of one pair."""
    groups: list[list[Pair]] = []
    for pair in sorted(pairs, key=lambda item: item.size):
        last = groups[-1] if groups else []
        fits = pair.size * 2 * (len(last) + 1) <= most_tokens
        if last and fits and pair.size <= last[0].size * _MOST_PADDING + _FREE_PADDING:
            last.append(pair)
        else:
            groups.append([pair])
    return [pair_batch(group, pad_id) for group in groups]


def pair_stream(
    pairs: Sequence[Pair],
    pairs_per_step: int,
    pad_id: int,
    most_tokens: int,
    seed: int,
    start_step: int = 0,
    shares: np.ndarray | None = None,
) -> Iterator[list[Batch]]:
    """Endless steps of pairs; the pairs of a step depend on (pairs, seed, step) only, and each worker has its part.

    Args:
        pairs: At least one.
        pairs_per_step: Pairs of one step, of all workers.
        pad_id: Fills the rows.
        most_tokens: Of one forward pass, see `TrainingConfig.pair_tokens`.
        seed: Seeds the order.
        start_step: Where to begin.
        shares: Probability of each pair for sampling with replacement; None takes every pair once per epoch.
    """
    for step in range(start_step, 2**62):
        if shares is not None:
            chosen = np.random.default_rng((seed, step)).choice(len(pairs), pairs_per_step, p=shares).tolist()
        else:
            first = step * pairs_per_step
            chosen = [_of_epoch(index, len(pairs), seed) for index in range(first, first + pairs_per_step)]
        yield micro_batches([pairs[index] for index in own_rows(chosen)], pad_id, most_tokens)


def pad_id_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id that fills the end of rows: `<|endoftext|>`, which never stands inside a conversation."""
    return int(tokenizer.convert_tokens_to_ids(END_OF_TEXT))


def split_sides(values: Tensor) -> tuple[Tensor, Tensor]:
    """Chosen and rejected halves of a pair batch's per-row values [2 x pairs]."""
    chosen, rejected = values.chunk(2)
    return chosen, rejected


def _of_epoch(index: int, count: int, seed: int) -> int:
    epoch, place = divmod(index, count)
    return int(np.random.default_rng((seed, epoch)).permutation(count)[place])


def _tokenize(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]
