"""The three passes over a part: rules, scores, thresholds.

A part carries all its documents through the passes, dropped ones too, so that the last pass writes a row of scores for
every document that was read; what the models are trained on is gathered in the first pass, in bounded samples.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qwenops.contracts.document import (
    CODE_LANGUAGE,
    DOCUMENT_SCHEMA,
    check_documents,
    dropped_table,
    funnel_of,
)
from qwenops.data.quality.classifier import Model, featurise, in_hash_order
from qwenops.data.quality.config import QualityConfig
from qwenops.data.quality.perplexity import load_models, perplexities
from qwenops.data.quality.pii import mask
from qwenops.data.quality.rules import apply_rules
from qwenops.data.quality.scores import SCORES_SCHEMA, Thresholds, reasons_of
from qwenops.platform.ray.documents import PartResult

SAMPLE_SCHEMA = pa.schema([("role", pa.string()), ("id", pa.string()), ("lang", pa.string()), ("text", pa.string())])
# About what a word of trusted text takes, so that the words that are trained on are among those that are sampled.
_BYTES_PER_WORD = 16


@dataclass(frozen=True)
class Scorers:
    """The trained models.

    Attributes:
        classifier: Text quality.
        offensive: Offensive text; None for none.
        perplexity: File of the n-gram models; None for none.
    """

    classifier: Model
    offensive: Model | None
    perplexity: Path | None


def rule_part(table: pa.Table, config: QualityConfig) -> PartResult:
    """Judge by rules and mask personal data; adds the columns rules and bytes, and samples to train on."""
    given, languages, domains = (table[name].to_pylist() for name in ("text", "lang", "domain"))
    judged = apply_rules(given, languages, domains, config)
    masked: Counter[str] = Counter()
    texts: list[str] = []
    for text in judged.texts:
        new, found = mask(text, config.pii.kinds)
        masked.update(found)
        texts.append(new)
    place = DOCUMENT_SCHEMA.get_field_index("text")
    table = table.set_column(place, DOCUMENT_SCHEMA.field("text"), pa.array(texts, pa.string()))
    table = table.append_column(SCORES_SCHEMA.field("bytes"), pc.cast(pc.binary_length(table["text"]), pa.int64()))
    rules = SCORES_SCHEMA.field("rules")
    table = table.append_column(rules, pa.array(judged.failed, rules.type))
    return PartResult({"ruled": table, "sample": sample_of([_roles(table, config)], config)}, {"pii": dict(masked)})


def sample_of(tables: Iterable[pa.Table], config: QualityConfig) -> pa.Table:
    """As many rows of each role as are trained on at most, the first in the order of a hash of the id.

    The sample of samples is the sample of everything, so tables may come one at a time and be forgotten.
    """
    best: dict[str, list[dict[str, Any]]] = {}
    for table in tables:
        for row in table.to_pylist():
            best.setdefault(row["role"], []).append(row)
        for role, rows in best.items():
            rows = in_hash_order(rows)
            if role in ("good", "failed"):
                best[role] = rows[: config.classifier.num_documents // 3]
            else:
                best[role] = _first_bytes(rows, config.perplexity.num_words * _BYTES_PER_WORD)
    return pa.Table.from_pylist([row for rows in best.values() for row in rows], schema=SAMPLE_SCHEMA)


def score_part(table: pa.Table, scorers: Scorers, config: QualityConfig) -> PartResult:
    """Score the prose that a set may keep; programs, which no model here judges, have quality 1."""
    forgiven = set(config.forgiven_rules)
    going = np.array([forgiven.issuperset(words) for words in table["rules"].to_pylist()], dtype=bool)
    is_code = pc.equal(table["lang"], CODE_LANGUAGE).to_numpy()
    scores = {
        name: np.full(table.num_rows, np.nan, dtype=np.float32) for name in ("quality", "perplexity", "offensive")
    }
    scores["quality"][going & is_code] = 1.0
    prose = np.flatnonzero(going & ~is_code)
    rows = table.take(pa.array(prose)).select(["id", "lang", "text"]).to_pylist()
    if rows:
        ids, features = [row["id"] for row in rows], featurise([row["text"] for row in rows], config.classifier)
        scores["quality"][prose] = scorers.classifier.score_features(ids, features)
        if scorers.offensive:
            scores["offensive"][prose] = scorers.offensive.score_features(ids, features)
        if scorers.perplexity:
            values = perplexities(rows, _models(scorers.perplexity))
            scores["perplexity"][prose] = [np.nan if value is None else value for value in values]
    table = table.drop_columns(["quality"])
    for name, values in scores.items():
        table = table.append_column(SCORES_SCHEMA.field(name), pa.array(values, from_pandas=True))
    return PartResult({"scored": table})


def select_part(
    table: pa.Table, grades: Mapping[str, float], limits: Mapping[str, Thresholds], keep: str, node: str
) -> PartResult:
    """Apply the thresholds: the documents of the set `keep`, the dropped ones, and the scores of all."""
    names = table["id"].to_pylist()
    grade = SCORES_SCHEMA.field("grade")
    table = table.append_column(grade, pa.array([grades.get(name) for name in names], grade.type))
    reasons = {name: reasons_of(table, limit) for name, limit in limits.items()}
    chosen = pa.array([reason == "" for reason in reasons[keep]], pa.bool_())
    kept = table.filter(chosen).select(DOCUMENT_SCHEMA.names).cast(DOCUMENT_SCHEMA)
    check_documents(kept, node)
    urls, texts = table["url"].to_pylist(), table["text"].to_pylist()
    dropped = dropped_table(row for row in zip(names, reasons[keep], urls, texts, strict=True) if row[1])
    sizes = np.array(table["bytes"].to_pylist(), dtype=np.int64)
    inside = {name: np.array([reason == "" for reason in words], dtype=bool) for name, words in reasons.items()}
    sets = {name: [int(mask.sum()), int(sizes[mask].sum())] for name, mask in inside.items()}
    scores = table.select(SCORES_SCHEMA.names).cast(SCORES_SCHEMA)
    return PartResult(
        {"documents": kept, "dropped": dropped, "scores": scores},
        {"funnel": asdict(funnel_of(node, kept, dropped)), "sets": sets},
    )


def _roles(table: pa.Table, config: QualityConfig) -> pa.Table:
    trusted = set(config.perplexity.sources)
    rows: list[dict[str, Any]] = []
    for row in table.select(["id", "lang", "source", "rules", "text"]).to_pylist():
        if row["lang"] != CODE_LANGUAGE:
            plain = {name: row[name] for name in ("id", "lang", "text")}
            rows.append({"role": "failed" if row["rules"] else "good", **plain})
            if row["source"] in trusted and not row["rules"]:
                rows.append({"role": f"trusted {row['lang']}", **plain})
    return pa.Table.from_pylist(rows, schema=SAMPLE_SCHEMA)


def _first_bytes(rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    sizes = np.cumsum([len(row["text"].encode()) for row in rows])
    return rows[: int(np.searchsorted(sizes, most, side="right")) + 1]


_models = lru_cache(maxsize=2)(load_models)
