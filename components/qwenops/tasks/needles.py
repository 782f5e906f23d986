"""Needles in text: rows in which a number is stated once and asked for at the end, and how to score them.

A model trained on a few million tokens of text alone learns no retrieval. Rows of this task, mixed into
pre-training, teach it, so that the long-context stages have something to extend and to measure. Training and
held-out rows share the sentence and nothing else: words, numbers and surrounding text are drawn apart.

A row of length L has L + 1 tokens: text, the needle at some depth, more text, the question, the answer's digits.
The model reads the first L and predicts the last L. Accuracy is teacher-forced: a needle counts when the argmax
is right at every digit. That equals exact match of greedy decoding: up to the first wrong digit both see the same
prefix, and after one wrong digit both count as wrong. The tokenizer must encode each digit as one token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from qwenops.errors import ContractError
from qwenops.training.loss import hidden_states, output_weight
from qwenops.training.objective import TokenCallback

ANSWER_DIGITS = 5
SENTENCE = "\nThe secret number of {word} is "
_CLOSING = ".\n"
_MAX_BATCH_TOKENS = 16_384
_DEPTH_BINS = 5

# One word names one needle. Even places are for training, odd places are held out.
_WORDS = """
river lamp garden window silver copper winter summer market bridge forest castle island mirror candle ladder
basket pocket hammer needle button carpet corner desert engine farmer feather finger flower guitar harbor jacket
kettle kitchen letter lemon marble meadow monkey mountain ocean orange palace paper pencil pepper pillow planet
rabbit ribbon saddle sailor school shadow shoulder spider spring stable station stone sugar table temple thunder
ticket tiger tower tunnel turtle valley velvet village violin wagon walnut weather whistle willow wizard yellow
anchor apple arrow autumn badger bakery banner barrel beacon beetle blanket bottle branch breeze bucket butter
"""
WORDS = tuple(_WORDS.split())


@dataclass(frozen=True)
class NeedleRows:
    """Rows with one needle each.

    Attributes:
        tokens: int64 [rows, length + 1]; the last `ANSWER_DIGITS` tokens are the answer.
        depths: float [rows], where the needle stands: 0 at the start of the row, 1 just before the question.
    """

    tokens: np.ndarray
    depths: np.ndarray

    @property
    def length(self) -> int:
        """Tokens that the model reads of a row."""
        return self.tokens.shape[1] - 1

    @property
    def num_tokens(self) -> int:
        """Tokens that the model reads of all rows."""
        return len(self.tokens) * self.length

    def loss_weights(self, answer_weight: float) -> np.ndarray:
        """float32 [rows, length] weights of the targets: 1, and `answer_weight` on the answer's digits."""
        weights = np.ones((len(self.tokens), self.length), dtype=np.float32)
        weights[:, -ANSWER_DIGITS:] = answer_weight
        return weights


@dataclass(frozen=True)
class NeedleScore:
    """Outcome of `evaluate_needles`: exact-match share, share of right digits, number of needles, share by depth."""

    accuracy: float
    digit_accuracy: float
    count: int
    by_depth: dict[str, float]


def needle_rows(
    tokenizer: Any,
    text: np.ndarray,
    *,
    length: int,
    count: int,
    seed: int | Sequence[int],
    split: Literal["train", "heldout"],
    depths: Sequence[float] | None = None,
) -> NeedleRows:
    """Make `count` rows; the same arguments give the same rows.

    Args:
        tokenizer: A transformers tokenizer in which a digit is one token.
        text: Integer [n] tokens of running text of the same split, n > length; windows of it surround the needle.
        length: Tokens the model reads per row.
        count: Rows.
        seed: Any seed of numpy's generators.
        split: Which words name the needles.
        depths: Depths to cycle through; None draws each row's depth uniformly.

    Raises:
        ContractError: the tokenizer joins digits, or there is too little text or room.
    """
    rng = np.random.default_rng(seed)
    digits = _digit_tokens(tokenizer)
    words = WORDS[0::2] if split == "train" else WORDS[1::2]
    chosen = rng.integers(len(words), size=count)
    openings = _encode(tokenizer, [SENTENCE.format(word=words[index]) for index in chosen])
    closing = _encode(tokenizer, [_CLOSING])[0]
    answers = digits[rng.integers(10, size=(count, ANSWER_DIGITS))]
    places = rng.random(count) if depths is None else np.resize(np.asarray(depths, dtype=float), count)
    tokens = np.empty((count, length + 1), dtype=np.int64)
    for row in range(count):
        needle = np.concatenate([openings[row], answers[row], closing])
        question = np.concatenate([openings[row], answers[row]])
        filler = length + 1 - len(needle) - len(question)
        if filler < 0 or len(text) <= filler:
            raise ContractError(
                "no room for a needle",
                expected=f"rows above {len(needle) + len(question)} tokens and longer text",
                found=f"rows of {length} tokens, {len(text)} tokens of text",
                action="use longer rows or more text",
            )
        start = rng.integers(len(text) - filler)
        window, cut = text[start : start + filler], round(places[row] * filler)
        tokens[row] = np.concatenate([window[:cut], needle, window[cut:], question])
    return NeedleRows(tokens, places)


@torch.no_grad()
def evaluate_needles(
    model: nn.Module,
    rows: NeedleRows,
    max_batch_tokens: int = _MAX_BATCH_TOKENS,
    on_tokens: TokenCallback | None = None,
) -> NeedleScore:
    """Score `model` on `rows` by teacher-forced argmax, a few rows at a time.

    Args:
        model: A `*ForCausalLM`; set to eval mode.
        rows: What `needle_rows` made, at any length the model can read.
        max_batch_tokens: Tokens of one forward pass; long rows go one by one.
        on_tokens: Hears of the tokens of every pass that is done.
    """
    model.eval()
    device = next(model.parameters()).device
    tokens = torch.from_numpy(rows.tokens)
    per_batch = max(max_batch_tokens // rows.length, 1)
    right = []
    for part in tokens.split(per_batch):
        part = part.to(device)
        hidden = hidden_states(model, part[:, :-1])[:, -ANSWER_DIGITS:]
        found = (hidden @ output_weight(model).T).argmax(-1)
        right.append((found == part[:, -ANSWER_DIGITS:]).cpu())
        if on_tokens:
            on_tokens(len(part) * rows.length)
    digits_right = torch.cat(right).numpy()
    exact = np.asarray(digits_right.all(axis=1))
    return NeedleScore(
        accuracy=float(exact.mean()),
        digit_accuracy=float(digits_right.mean()),
        count=len(exact),
        by_depth=_by_depth(exact, rows.depths),
    )


def _by_depth(exact: np.ndarray, depths: np.ndarray) -> dict[str, float]:
    bins = np.minimum((depths * _DEPTH_BINS).astype(int), _DEPTH_BINS - 1)
    return {
        f"{index / _DEPTH_BINS:.1f}-{(index + 1) / _DEPTH_BINS:.1f}": float(exact[bins == index].mean())
        for index in range(_DEPTH_BINS)
        if (bins == index).any()
    }


def _encode(tokenizer: Any, texts: list[str]) -> list[np.ndarray]:
    return [np.asarray(ids, dtype=np.int64) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def _digit_tokens(tokenizer: Any) -> np.ndarray:
    encoded = _encode(tokenizer, list("0123456789"))
    if any(len(ids) != 1 for ids in encoded):
        raise ContractError(
            "the tokenizer does not encode a digit as one token",
            expected="10 single tokens",
            found=[ids.tolist() for ids in encoded],
            action="train the tokenizer with digit splitting",
        )
    return np.concatenate(encoded)
