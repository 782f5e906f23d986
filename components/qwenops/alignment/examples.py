"""From conversations and preferences to token rows: the loss mask, and batches of pairs.

The loss lies on what the assistant says and on the `<|im_end|>` that closes it (report 4.2; the exact mask is a house
choice after Qwen1, which masks system and user inputs). An answer that a model sampled is learnt as the ids it was
sampled as, for its text may be tokenized into others; one that was cut at the token limit is learnt without an end.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from qwenops.alignment.shared_prompt import share_prompts, shared_length
from qwenops.contracts.conversation import Conversation, Message
from qwenops.contracts.preference import Preference
from qwenops.contracts.tokens import END_OF_TEXT, IM_END, encode_texts
from qwenops.generation.chat import control_ids, decode, encode_prompts
from qwenops.training.batching import Example, pad_batch, place_in_epochs
from qwenops.training.parallel import local_rows
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

    @property
    def shared_size(self) -> int:
        """Tokens of both sides, those that both begin with counted once."""
        both = self.chosen.tokens, self.rejected.tokens
        return len(both[0]) + len(both[1]) - shared_length(*both)


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    token_ids: Sequence[int] | None = None,
    finish: str | None = None,
) -> Example:
    """Tokenize a conversation; every assistant turn and its `<|im_end|>` are targets, nothing else is.

    Args:
        tokenizer: The policy's tokenizer.
        messages: Turns; those of one conversation.
        token_ids: Ids its last answer was sampled as, see `Conversation.token_ids`.
        finish: How that answer ended; "length" leaves it open.
    """
    places = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    tokens: list[int] = []
    loss_mask: list[bool] = []
    for place, before in zip(places, encode_prompts(tokenizer, [messages[:p] for p in places]), strict=True):
        last = place == len(messages) - 1
        spoken = _spoken(tokenizer, messages[place]["content"], *((token_ids, finish) if last else (None, None)))
        if not (last and finish == "length"):
            spoken[-1] = _id_of(tokenizer, IM_END)  # however the sampled answer ended, a turn ends so
        loss_mask += [False] * (len(before) - len(tokens)) + [True] * len(spoken)
        tokens = before + spoken
    return Example(tokens, loss_mask)


def encode_row(tokenizer: PreTrainedTokenizerBase, row: Conversation) -> Example:
    """Tokenize a demonstration, see `encode_conversation`."""
    return encode_conversation(tokenizer, row.messages, row.token_ids, row.finish)


def encode_response(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Message],
    response: str,
    token_ids: Sequence[int] | None = None,
    finish: str | None = None,
) -> Example:
    """Tokenize one response to a prompt; only the response and its end token are targets, a cut one has none."""
    return encode_sampled(tokenizer, prompt, _spoken(tokenizer, response, token_ids, finish))


def encode_sampled(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], token_ids: Sequence[int]) -> Example:
    """A prompt and the ids that were sampled after it, which are the targets."""
    (before,) = encode_prompts(tokenizer, [prompt])
    return Example(before + list(token_ids), [False] * len(before) + [True] * len(token_ids))


def encode_pair(tokenizer: PreTrainedTokenizerBase, row: Preference) -> Pair:
    """Tokenize both sides of a preference as they were sampled, where that is known."""
    return Pair(
        encode_response(tokenizer, row.prompt, row.chosen, row.chosen_ids, row.chosen_finish),
        encode_response(tokenizer, row.prompt, row.rejected, row.rejected_ids, row.rejected_finish),
    )


def encode_finished_pair(tokenizer: PreTrainedTokenizerBase, row: Preference) -> Pair:
    """Tokenize the texts of a preference, both closed, for a reward model: it reads at the end and learns no text."""
    chosen, rejected = (encode_response(tokenizer, row.prompt, text) for text in (row.chosen, row.rejected))
    return Pair(chosen, rejected)


def encode_conversations(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Conversation], max_length_tokens: int
) -> tuple[list[Example], int]:
    """Tokenize the answered rows; returns the examples that fit and how many were too long."""
    examples = [encode_row(tokenizer, row) for row in rows if row.is_answered]
    fitting = [example for example in examples if len(example.tokens) <= max_length_tokens]
    return fitting, len(examples) - len(fitting)


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Preference],
    max_length_tokens: int,
    encode: Callable[[PreTrainedTokenizerBase, Preference], Pair] = encode_pair,
) -> tuple[list[Pair], list[Preference]]:
    """Tokenize preferences; returns the pairs that fit and the rows they came from."""
    pairs = [(encode(tokenizer, row), row) for row in rows]
    fitting = [(pair, row) for pair, row in pairs if pair.size <= max_length_tokens]
    return [pair for pair, _ in fitting], [row for _, row in fitting]


def pair_batch(pairs: Sequence[Pair], pad_id: int) -> Batch:
    """Pairs as one padded batch: the chosen sides in the upper half of the rows, the rejected in the lower.

    Returns:
        What `pad_batch` returns for 2 x pairs rows, what `share_prompts` does, and `reference` float [2 x pairs].
    """
    sides = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    batch = pad_batch(sides, pad_id)
    references = [pair.reference[0] for pair in pairs] + [pair.reference[1] for pair in pairs]
    shared = share_prompts([(pair.chosen.tokens, pair.rejected.tokens) for pair in pairs], pad_id)
    return batch | shared | {"reference": torch.tensor(references)}


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
            chosen = [place_in_epochs(index, len(pairs), seed) for index in range(first, first + pairs_per_step)]
        yield micro_batches([pairs[index] for index in local_rows(chosen)], pad_id, most_tokens)


def pad_id_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id that fills the end of rows: `<|endoftext|>`, which never stands inside a conversation."""
    return _id_of(tokenizer, END_OF_TEXT)


def split_chosen_rejected(values: Tensor) -> tuple[Tensor, Tensor]:
    """Chosen and rejected halves of a pair batch's per-row values [2 x pairs]."""
    chosen, rejected = values.chunk(2)
    return chosen, rejected


def _id_of(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    return int(tokenizer.convert_tokens_to_ids(token))  # pyright: ignore[reportArgumentType]  # a token has one id


def _spoken(tokenizer: Any, text: str, token_ids: Sequence[int] | None, finish: str | None) -> list[int]:
    """Ids of a response: those it was sampled as while they spell its text, else the text's own and an end.

    Ids of another vocabulary, or of a text that somebody changed since, spell something else. Ids with a control token
    before their end are not used either: the judge read the text without it.
    """
    control = control_ids(tokenizer)
    clean = token_ids and [i in control for i in token_ids] == [*[False] * (len(token_ids) - 1), finish != "length"]
    if token_ids and clean and max(token_ids) < len(tokenizer) and decode(tokenizer, [token_ids]) == [text]:
        return list(token_ids)
    (ids,) = encode_texts(tokenizer, [text])
    return ids if finish == "length" else [*ids, _id_of(tokenizer, IM_END)]
