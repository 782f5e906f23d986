"""Log-likelihood of continuations under a causal language model, batched by length.

Dimensions: B rows, T tokens of the longest row in a batch, D hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qwenops.contracts.tokens import encode_texts
from qwenops.model.checkpoints import load_model, to_device


@dataclass(frozen=True)
class Continuation:
    """A context and the continuation whose log-likelihood is asked for, as token ids.

    Attributes:
        ids: Tokens of context and continuation together.
        start: Index of the continuation's first token; at least 1.
    """

    ids: tuple[int, ...]
    start: int


def load_scorer(path: Path) -> PreTrainedModel:
    """Load a checkpoint for scoring, on the GPU when there is one."""
    return to_device(load_model(path), "cuda" if torch.cuda.is_available() else "cpu")


def split_continuation(tokenizer: PreTrainedTokenizerBase, context: str, continuation: str) -> Continuation:
    """Tokenise context and continuation as one text and find where the continuation begins.

    Tokenising them apart would put a token border where the model never saw one.
    """
    whole, alone = encode_texts(tokenizer, [context + continuation, context])
    before = len(alone)
    # A token may span the border; it then counts as part of the continuation.
    while (
        before > 1
        and tokenizer.decode(whole[:before]) != context
        and len(tokenizer.decode(whole[:before])) >= len(context)
    ):
        before -= 1
    return Continuation(tuple(whole), max(1, min(before, len(whole) - 1)))


@torch.no_grad()
def log_likelihoods(model: PreTrainedModel, rows: Sequence[Continuation], batch_tokens: int) -> list[float]:
    """Sum of the continuation tokens' log-probabilities of each row, in nats and in the order of `rows`.

    Rows that differ in their last token only (the letters of a multiple choice question) share one forward pass.

    Args:
        model: Causal language model in evaluation mode.
        rows: What to score.
        batch_tokens: Upper bound of B * T.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(row.ids[:-1], []).append(place)
    results = [0.0] * len(rows)
    for batch in _batches(sorted(groups, key=len, reverse=True), batch_tokens):
        hidden_BTD = _hidden(model, batch)
        for number, prefix in enumerate(batch):
            for place in groups[prefix]:
                results[place] = _score(model, hidden_BTD[number], rows[place])
    return results


def _hidden(model: PreTrainedModel, batch: Sequence[tuple[int, ...]]) -> torch.Tensor:
    longest = max(map(len, batch))
    # Padding stands on the right, where a causal model cannot see it, so no mask is needed.
    ids_BT = torch.zeros(len(batch), longest, dtype=torch.long)
    for number, prefix in enumerate(batch):
        ids_BT[number, : len(prefix)] = torch.tensor(prefix)
    return model.get_decoder()(input_ids=ids_BT.to(model.device), use_cache=False).last_hidden_state


def _score(model: PreTrainedModel, hidden_TD: torch.Tensor, row: Continuation) -> float:
    end = len(row.ids) - 1
    head = model.get_output_embeddings()
    assert head is not None, "a causal language model has one"
    logits = head(hidden_TD[row.start - 1 : end]).float()
    targets = torch.tensor(row.ids[row.start :], device=logits.device)
    return -float(functional.cross_entropy(logits, targets, reduction="sum"))


def _batches(prefixes: list[tuple[int, ...]], batch_tokens: int) -> list[list[tuple[int, ...]]]:
    batches: list[list[tuple[int, ...]]] = []
    for prefix in prefixes:
        # Longest first: the first row of a batch sets its width.
        if batches and (len(batches[-1]) + 1) * len(batches[-1][0]) <= batch_tokens:
            batches[-1].append(prefix)
        else:
            batches.append([prefix])
    return batches
