"""Scores first, thresholds later: one row of scores for every document, and the limits that make a set of them.

The strict and the relaxed set (7T and 12T tokens in the report) differ in limits alone, so both follow from the same
scores, and so does any other set that somebody thinks of afterwards: `scores/part-*.parquet` is an output.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from qwenops.data.quality.config import QualityConfig

SETS = ("strict", "relaxed")
SCORES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("lang", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("rules", pa.list_(pa.string()), nullable=False),
        pa.field("quality", pa.float32()),
        pa.field("perplexity", pa.float32()),
        pa.field("offensive", pa.float32()),
        pa.field("grade", pa.float32()),
    ]
)
# Limits are compared with scores of this precision, so that a stored score decides as it did in the stage.
_REASONS = {"quality": "classifier", "perplexity": "perplexity", "offensive": "offensive", "grade": "rubric"}


@dataclass(frozen=True)
class Thresholds:
    """What a document of a set must hold; a score that it has not got passes.

    Attributes:
        forgiven: Reason words of rules that are passed over.
        quality: Lowest score of the classifier.
        perplexity: Language to the highest perplexity.
        offensive: Highest score of the offensive-text model.
        grade: Lowest grade by the rubric.
    """

    forgiven: frozenset[str]
    quality: float
    perplexity: Mapping[str, float]
    offensive: float
    grade: float


def thresholds_of(config: QualityConfig, scores: pa.Table) -> dict[str, Thresholds]:
    """The limits of each set; those of perplexity are quantiles of the documents that have one, by language.

    Args:
        config: The thresholds.
        scores: Columns lang and perplexity of every document.
    """
    shares = {"strict": config.perplexity.strict_share, "relaxed": config.perplexity.relaxed_share}
    offensive = {"strict": config.offensive.strict_threshold, "relaxed": config.offensive.relaxed_threshold}
    quality = {"strict": config.classifier.strict_threshold, "relaxed": config.classifier.relaxed_threshold}
    grade = {"strict": config.rubric.strict_threshold, "relaxed": config.rubric.relaxed_threshold}
    forgiven = {"strict": frozenset[str](), "relaxed": frozenset(config.forgiven_rules)}
    return {
        name: Thresholds(forgiven[name], quality[name], _quantiles(scores, shares[name]), offensive[name], grade[name])
        for name in SETS
    }


def reasons_of(scores: pa.Table, limits: Thresholds) -> list[str]:
    """For each row of scores "", or the word for why the document is not in the set."""
    rules = [next((word for word in words if word not in limits.forgiven), "") for words in scores["rules"].to_pylist()]
    most = np.array([limits.perplexity.get(language, np.inf) for language in scores["lang"].to_pylist()], np.float32)
    # A missing score is NaN, which is on no side of any limit.
    fails = {
        "quality": _column(scores, "quality") < np.float32(limits.quality),
        "perplexity": _column(scores, "perplexity") > most,
        "offensive": _column(scores, "offensive") > np.float32(limits.offensive),
        "grade": _column(scores, "grade") < np.float32(limits.grade),
    }
    reasons = np.full(scores.num_rows, "", dtype=object)
    for name, failed in reversed(fails.items()):
        reasons[failed] = _REASONS[name]
    return [rule or reason for rule, reason in zip(rules, reasons.tolist(), strict=True)]


def _quantiles(scores: pa.Table, share: float) -> dict[str, float]:
    if share >= 1:
        return {}
    values = _column(scores, "perplexity")
    languages = np.array(scores["lang"].to_pylist(), dtype=object)
    known = ~np.isnan(values)
    return {
        name: float(np.quantile(values[known & (languages == name)], share, method="lower"))
        for name in sorted(set(languages[known].tolist()))
    }


def _column(scores: pa.Table, name: str) -> np.ndarray:
    return scores[name].to_numpy(zero_copy_only=False).astype(np.float32)
