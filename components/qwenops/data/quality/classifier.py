"""A trained text-quality classifier: hashed character and word n-grams and one linear layer.

Good examples are documents that pass every rule; bad ones are documents that fail a rule, and texts made bad from
good ones: words shuffled, charset damaged, lines of many documents put together like a menu. A document is always
scored by the model that has not seen it (two folds, by a hash of the id), so the scores and the AUC are honest and
no document has to be set aside.
"""

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import roc_auc_score

from qwenops.data.quality.config import ClassifierConfig
from qwenops.errors import ContractError

NUM_FOLDS = 2
_MENU_LINES = 40
_MENU_CHARACTERS = 40
_MIN_EXAMPLES = 10
_PASSES = 20


@dataclass(frozen=True)
class Model:
    """Two linear models over hashed n-grams.

    Attributes:
        weights: float32, shape [folds, features].
        bias: float32, shape [folds].
    """

    weights: np.ndarray
    bias: np.ndarray

    def score(self, ids: Sequence[str], texts: Sequence[str], config: ClassifierConfig) -> np.ndarray:
        """Quality in [0, 1] for each text, float32, by the fold that was not trained on its id."""
        return self.score_features(ids, featurise(texts, config)) if texts else np.zeros(0, dtype=np.float32)

    def score_features(self, ids: Sequence[str], features: csr_matrix) -> np.ndarray:
        """As `score`, for texts that `featurise` has seen already."""
        logits = features @ self.weights.T + self.bias
        own = logits[np.arange(len(ids)), [fold_of(i) for i in ids]]
        return (1.0 / (1.0 + np.exp(-own))).astype(np.float32)


@dataclass(frozen=True)
class Examples:
    """Labelled texts: 1 for good, 0 for bad; `kinds` says where each comes from."""

    ids: list[str]
    texts: list[str]
    labels: list[int]
    kinds: list[str]


def fold_of(identifier: str) -> int:
    """The fold whose model scores this document; the other folds' documents trained it."""
    return hashlib.sha256(b"fold" + identifier.encode()).digest()[0] % NUM_FOLDS


def featurise(texts: Sequence[str], config: ClassifierConfig) -> csr_matrix:
    """Hashed n-grams of the middle of each text, shape [texts, features]; rows have unit length."""
    half = config.num_features // 2
    cut = [_middle(text, config.num_characters) for text in texts]
    characters = HashingVectorizer(analyzer="char", ngram_range=(2, 4), n_features=half, lowercase=False)
    words = HashingVectorizer(analyzer="word", ngram_range=(1, 2), n_features=half, token_pattern=r"\S+")
    return csr_matrix(hstack([characters.transform(cut), words.transform(cut)], format="csr", dtype=np.float32))


def make_examples(good: pa.Table, failed: pa.Table, config: ClassifierConfig, seed: int) -> Examples:
    """Label documents and make bad texts, as many by language as there are good ones.

    Args:
        good: Documents that passed the rules; columns id, text, lang.
        failed: Documents that failed one; columns id, text, lang.
        config: Limits how many are taken.
        seed: Seeds the damage.

    Raises:
        ContractError: there are too few good documents to learn from.
    """
    chosen = in_hash_order(good.to_pylist())[: config.num_documents // 3]
    if len(chosen) < _MIN_EXAMPLES:
        raise ContractError(
            "too few documents pass the quality rules to train the classifier",
            expected=f"at least {_MIN_EXAMPLES}",
            found=len(chosen),
            action="add a source, or relax the rules that funnel.json counts",
        )
    real = in_hash_order(failed.to_pylist())[: config.num_documents // 3]
    made = _damage(chosen, random.Random(seed))
    rows = [(row, 1, "passed") for row in chosen] + [(row, 0, "failed") for row in real] + [(r, 0, k) for r, k in made]
    return Examples(
        [row["id"] for row, _, _ in rows],
        [row["text"] for row, _, _ in rows],
        [label for _, label, _ in rows],
        [kind for _, _, kind in rows],
    )


def train(examples: Examples, config: ClassifierConfig) -> tuple[Model, dict[str, float]]:
    """Train one model per fold.

    Returns:
        The model, and the out-of-fold AUC over all examples ("all") and against each kind of bad text.
    """
    features = featurise(examples.texts, config)
    labels = np.array(examples.labels)
    folds = np.array([fold_of(i) for i in examples.ids])
    weights = np.zeros((NUM_FOLDS, features.shape[1]), dtype=np.float32)  # pyright: ignore[reportOptionalSubscript]  # scipy has no types
    bias = np.zeros(NUM_FOLDS, dtype=np.float32)
    for fold in range(NUM_FOLDS):
        # Averaged stochastic descent: the AUC of an exact solver within 0.01, in a tenth of its time.
        learner: Any = SGDClassifier(
            loss="log_loss",
            alpha=1e-5,
            max_iter=_PASSES,
            tol=None,  # pyright: ignore[reportArgumentType]  # scikit-learn has no types, this is read off its default
            average=True,
            class_weight="balanced",
            random_state=0,
        )
        learner.fit(features[folds != fold], labels[folds != fold])
        weights[fold], bias[fold] = learner.coef_[0], learner.intercept_[0]
    model = Model(weights, bias)
    return model, _areas(examples, model.score_features(examples.ids, features))


def _areas(examples: Examples, scores: np.ndarray) -> dict[str, float]:
    labels, kinds = np.array(examples.labels), np.array(examples.kinds)
    areas = {"all": float(roc_auc_score(labels, scores))}
    for kind in sorted(set(examples.kinds) - {"passed"}):
        chosen = (labels == 1) | (kinds == kind)
        areas[kind] = float(roc_auc_score(labels[chosen], scores[chosen]))
    return areas


def in_hash_order(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows by a hash of their `id`: an order that is random and needs no seed, and the same on any machine."""
    return sorted(rows, key=lambda row: hashlib.sha256(row["id"].encode()).digest())


def _damage(rows: list[dict[str, Any]], rng: random.Random) -> list[tuple[dict[str, Any], str]]:
    """One bad text from every good one, its kind in turn."""
    lines: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        lines[row["lang"]] += [line for line in row["text"].split("\n") if 0 < len(line) <= _MENU_CHARACTERS]
    makers = (("shuffled", _shuffle), ("garbled", _garble), ("menu", _menu))
    made: list[tuple[dict[str, Any], str]] = []
    for number, row in enumerate(rows):
        kind, maker = makers[number % len(makers)]
        made.append(({"id": row["id"], "text": maker(row["text"], lines[row["lang"]], rng)}, kind))
    return made


def _shuffle(text: str, _: list[str], rng: random.Random) -> str:
    pieces = text.split() if " " in text[:200] else list(text)
    rng.shuffle(pieces)
    return (" " if " " in text[:200] else "").join(pieces)


def _garble(text: str, _: list[str], rng: random.Random) -> str:
    """The wrong charset, or one character in eight replaced."""
    if not text.isascii():
        return text.encode("utf-8").decode("latin-1")
    return "".join(chr(rng.randrange(33, 127)) if rng.random() < 0.125 else letter for letter in text)


def _menu(text: str, lines: list[str], rng: random.Random) -> str:
    source = lines or text.split()
    return "\n".join(rng.choice(source) for _ in range(_MENU_LINES))


def _middle(text: str, characters: int) -> str:
    start = max((len(text) - characters) // 2, 0)
    return text[start : start + characters]
