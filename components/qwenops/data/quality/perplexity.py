"""Perplexity under an n-gram model of trusted text, the score that CCNet splits its pages by.

The model is trained by the stage itself, one for each language, from the sources that a recipe trusts. Interpolated
absolute discounting, whose probabilities sum to one over the vocabulary and one unknown word:

    p(w | h) = max(c(hw) - d, 0) / c(h) + d T(h) / c(h) p(w | h'),    p(w) ends in 1 / (V + 1)

with c counts, T(h) the different words seen after h, h' the history without its first word. N-grams are 64-bit hashes
in sorted arrays, so a batch is looked up at once and nothing is cut off; KenLM's modified Kneser-Ney would be a little
sharper, and is a C++ program that no package ships. A document is scored by the half of the trusted text that it is not
in, as for the classifier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from qwenops.data.characters import SPACE, Hashes, mix_bits
from qwenops.data.quality.batch import Batch
from qwenops.data.quality.classifier import NUM_FOLDS, fold_of, in_hash_order
from qwenops.data.quality.config import PerplexityConfig
from qwenops.data.quality.rules import UNSPACED
from qwenops.data.spans import Integers

_MULTIPLIER = np.uint64(0xD1342543DE82EF95)
_BEGIN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Order:
    """The n-grams of one length.

    Attributes:
        grams: uint64 [G], ascending.
        counts: int64 [G], how often each occurs.
        histories: uint64 [H], ascending; the n-grams without their last word.
        totals: int64 [H], words seen after each.
        types: int64 [H], different words seen after each.
    """

    grams: Hashes
    counts: Integers
    histories: Hashes
    totals: Integers
    types: Integers


class NgramModel:
    """An interpolated n-gram model.

    Args:
        orders: The counts for n = 1, 2, ....
        discount: d, in (0, 1).
    """

    def __init__(self, orders: Sequence[Order], discount: float) -> None:
        self.orders, self.discount = list(orders), discount

    @classmethod
    def train(cls, documents: Sequence[Hashes], order: int, discount: float) -> "NgramModel":
        """Count the n-grams of documents given as word hashes."""
        orders: list[Order] = []
        for grams, histories in _grams(documents, order):
            keys, first, counts = np.unique(grams, return_index=True, return_counts=True)
            before, place = np.unique(histories[first], return_inverse=True)
            totals = np.bincount(place, weights=counts, minlength=len(before)).astype(np.int64)
            orders.append(Order(keys, counts, before, totals, np.bincount(place, minlength=len(before))))
        return cls(orders, discount)

    def log_probabilities(self, documents: Sequence[Hashes]) -> np.ndarray:
        """Natural log of p(w | h) for every word of the documents, end to end: float64."""
        chance = np.full(sum(map(len, documents)), 1.0 / (len(self.orders[0].grams) + 1))
        for counted, (grams, histories) in zip(self.orders, _grams(documents, len(self.orders)), strict=True):
            counts = _look_up(counted.grams, counted.counts, grams)
            totals = _look_up(counted.histories, counted.totals, histories)
            types = _look_up(counted.histories, counted.types, histories)
            seen = totals > 0
            some = np.maximum(totals, 1)
            sharp = np.maximum(counts - self.discount, 0) / some + self.discount * types / some * chance
            chance = np.where(seen, sharp, chance)
        return np.log(chance)


def word_hashes(texts: Sequence[str], language: str) -> list[Hashes]:
    """The case-folded words of each text as hashes; characters where a script puts no blanks between words."""
    batch = Batch(texts, "marks")
    if language in UNSPACED:
        places = np.flatnonzero((batch.flags & SPACE) == 0)
        hashes, counts = mix_bits(batch.codes[places].astype(np.uint64) + np.uint64(1)), batch.count_in(places)
    else:
        hashes, counts = batch.folded_hashes(batch.words), batch.number(batch.words)
    return np.split(hashes, np.cumsum(counts)[:-1])


def train_models(trusted: pa.Table, config: PerplexityConfig) -> dict[tuple[str, int], NgramModel]:
    """A model for each language and fold of trusted documents (columns id, lang, text), from the other folds."""
    models: dict[tuple[str, int], NgramModel] = {}
    for language in sorted(set(trusted["lang"].to_pylist())):
        rows = in_hash_order(row for row in trusted.to_pylist() if row["lang"] == language)
        hashed = word_hashes([row["text"] for row in rows], language)
        for fold in range(NUM_FOLDS):
            some = [words for row, words in zip(rows, hashed, strict=True) if fold_of(row["id"]) != fold and len(words)]
            sizes = np.cumsum([len(words) for words in some])
            some = some[: int(np.searchsorted(sizes, config.num_words, side="right")) + 1]
            if some:
                models[language, fold] = NgramModel.train(some, config.order, config.discount)
    return models


def perplexities(rows: Sequence[Mapping[str, str]], models: Mapping[tuple[str, int], NgramModel]) -> list[float | None]:
    """Perplexity by word of each row (id, lang, text); None where no model knows the language or there is no word."""
    found: list[float | None] = [None] * len(rows)
    groups: dict[tuple[str, int], list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault((row["lang"], fold_of(row["id"])), []).append(number)
    for (language, fold), numbers in groups.items():
        if model := models.get((language, fold)):
            hashed = word_hashes([rows[number]["text"] for number in numbers], language)
            logs = np.split(model.log_probabilities(hashed), np.cumsum([len(words) for words in hashed])[:-1])
            for number, values in zip(numbers, logs, strict=True):
                found[number] = float(np.exp(-values.mean())) if len(values) else None
    return found


def save_models(models: Mapping[tuple[str, int], NgramModel], path: Path) -> None:
    """Write models as one npz file."""
    arrays = {
        f"{language} {fold} {n} {name}": values
        for (language, fold), model in models.items()
        for n, order in enumerate(model.orders)
        for name, values in vars(order).items()
    }
    arrays |= {f"{language} {fold} discount": np.array(model.discount) for (language, fold), model in models.items()}
    with path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def load_models(path: Path) -> dict[tuple[str, int], NgramModel]:
    """Read what `save_models` wrote."""
    found: dict[tuple[str, int], dict[int, dict[str, Any]]] = {}
    discounts: dict[tuple[str, int], float] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            language, fold, *rest = key.split(" ")
            if rest == ["discount"]:
                discounts[language, int(fold)] = float(arrays[key])
            else:
                found.setdefault((language, int(fold)), {}).setdefault(int(rest[0]), {})[rest[1]] = arrays[key]
    return {
        name: NgramModel([Order(**orders[n]) for n in sorted(orders)], discounts[name])
        for name, orders in found.items()
    }


def _grams(documents: Sequence[Hashes], order: int) -> list[tuple[Hashes, Hashes]]:
    """For n = 1 up to `order`, the n-gram that ends at each word, and the same without the word."""
    begin = np.full(order - 1, _BEGIN)
    padded = np.concatenate([np.append(begin, words) for words in documents] or [begin])
    sizes = np.array([len(words) for words in documents], dtype=np.int64)
    last = np.arange(sizes.sum()) + (order - 1) * np.repeat(np.arange(1, len(sizes) + 1), sizes)
    found: list[tuple[Hashes, Hashes]] = []
    for n in range(1, order + 1):
        history = np.zeros(len(last), dtype=np.uint64)
        for back in range(n - 1, 0, -1):
            history = mix_bits(history * _MULTIPLIER + padded[last - back])
        found.append((mix_bits(history * _MULTIPLIER + padded[last]), history))
    return found


def _look_up(keys: Hashes, values: Integers, wanted: Hashes) -> Integers:
    if not len(keys):
        return np.zeros(len(wanted), dtype=np.int64)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)
