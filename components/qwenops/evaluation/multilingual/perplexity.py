"""Held-out loss by language, in bits per byte, so that languages and tokenizers compare.

A document is cut into windows of the model's context; the first token of a document is predicted from the end-of-text
token, as in training, and that of a later window from the token before it.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qwenops.contracts.tokens import Ids
from qwenops.evaluation.likelihood import Continuation, log_likelihoods


@dataclass(frozen=True)
class LanguageLoss:
    """Loss on one language: nats per token, bits per UTF-8 byte, and how much text is behind it."""

    nats_per_token: float
    bits_per_byte: float
    tokens: int
    bytes: int

    def as_plain(self) -> dict[str, float]:
        """As JSON data."""
        return asdict(self)


def language_loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[Ids],
    end_of_text: int,
    context_tokens: int,
    token_budget: int,
    batch_tokens: int,
) -> LanguageLoss | None:
    """Loss over the first `token_budget` tokens of `documents`; None when they hold no text.

    Args:
        model: Causal language model.
        tokenizer: Counts the bytes of what was scored.
        documents: Ids of each document, end-of-text id included.
        end_of_text: That id; it starts every document here and is not scored.
        context_tokens: Longest window.
        token_budget: Tokens to score at most.
        batch_tokens: Tokens of one forward pass.
    """
    rows = _windows(documents, end_of_text, context_tokens, token_budget)
    scored = [list(row.ids[row.start :]) for row in rows]
    tokens = sum(map(len, scored))
    size = sum(len(text.encode()) for text in tokenizer.batch_decode(scored, clean_up_tokenization_spaces=False))
    if not tokens or not size:
        return None
    nats = -sum(log_likelihoods(model, rows, batch_tokens))
    return LanguageLoss(nats / tokens, nats / math.log(2) / size, tokens, size)


def _windows(documents: Sequence[Ids], end_of_text: int, context: int, budget: int) -> list[Continuation]:
    rows: list[Continuation] = []
    left = budget
    for document in documents:
        ids = [end_of_text, *(int(token) for token in document if token != end_of_text)]
        for begin in range(0, len(ids) - 1, context - 1):
            window = ids[begin : begin + context][: left + 1]
            if len(window) > 1:
                rows.append(Continuation(tuple(window), 1))
                left -= len(window) - 1
    return rows
