"""Filter documents by rules, then by a classifier that is trained here on what the rules say."""

import json
from collections import Counter
from dataclasses import asdict
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qwenops.contracts.document import (
    CODE_LANGUAGE,
    DOCUMENT_SCHEMA,
    Funnel,
    check_documents,
    documents_from_rows,
    dropped_table,
    funnel_of,
    part_paths,
)
from qwenops.data.accounting import account
from qwenops.data.quality.classifier import Model, make_examples, train
from qwenops.data.quality.config import QualityConfig
from qwenops.data.quality.rules import judge
from qwenops.platform.ray_data import PartResult, map_parts, publish
from qwenops.platform.stage import Stage

_FAILED_SCHEMA = pa.schema([("id", pa.string()), ("reason", pa.string()), ("lang", pa.string()), ("text", pa.string())])
_MODEL = "classifier.npz"


def run(config: QualityConfig, *, documents: Path, stage: Stage) -> None:
    """Write `documents/part-*.parquet`, the funnel, `classifier.npz` and `quality.json`.

    Raises:
        ContractError: too few documents pass the rules to train the classifier.
        ContractError: no document is left.
    """
    parts = part_paths(documents)
    ruled, scored = stage.scratch / "ruled", stage.scratch / "scored"
    with stage.progress(2 * len(parts), "parts") as progress:
        map_parts(stage.context, parts, partial(_rule_part, config=config), ruled, progress=progress)
        failed = _read(part_paths(ruled, "failed"))
        model, areas = _train(ruled, failed, config, stage)
        work = partial(_score_part, model=model, config=config, node=stage.node)
        summaries = map_parts(stage.context, part_paths(ruled), work, scored, progress=progress)
    publish(scored, "documents", stage.out)
    dropped = pa.concat_tables([_read(part_paths(scored, "dropped")), failed.select(["id", "reason", "text"])])
    funnel = reduce(add, (Funnel(**summary["funnel"]) for summary in summaries))
    account(stage, funnel + Funnel(stage.node, failed.num_rows, 0, _count(failed)), dropped)
    stage.metric("classifier.auc", areas["all"])
    sets = {name: sum(summary[name] for summary in summaries) for name in ("strict", "relaxed")}
    facts = {"auc": areas, "documents": sets, "kept": config.keep}
    (stage.out / "quality.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _rule_part(table: pa.Table, config: QualityConfig) -> PartResult:
    passed: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    judged = judge(*(table[name].to_pylist() for name in ("text", "lang", "domain")), config)
    for row, text, reason in zip(table.to_pylist(), judged.texts, judged.reasons, strict=True):
        (failed if reason else passed).append(row | {"text": text, "reason": reason})
    for row in passed:
        del row["reason"]
    bad = [{name: row[name] for name in _FAILED_SCHEMA.names} for row in failed]
    return PartResult(
        {"documents": documents_from_rows(passed), "failed": pa.Table.from_pylist(bad, schema=_FAILED_SCHEMA)}
    )


def _train(ruled: Path, failed: pa.Table, config: QualityConfig, stage: Stage) -> tuple[Model, dict[str, float]]:
    good = _read(part_paths(ruled), ["id", "text", "lang"])
    prose = good.filter(pc.not_equal(good["lang"], CODE_LANGUAGE))
    examples = make_examples(
        prose, failed.filter(pc.not_equal(failed["lang"], CODE_LANGUAGE)), config.classifier, stage.seed
    )
    model, areas = train(examples, config.classifier)
    np.savez_compressed(stage.out / _MODEL, weights=model.weights, bias=model.bias)
    return model, areas


def _score_part(table: pa.Table, model: Model, config: QualityConfig, node: str) -> PartResult:
    """Score the prose of a part; programs, which the classifier does not judge, have quality 1."""
    quality = np.ones(table.num_rows, dtype=np.float32)
    prose = np.flatnonzero(pc.not_equal(table["lang"], CODE_LANGUAGE).to_numpy())
    some = table.take(pa.array(prose))
    quality[prose] = model.score(some["id"].to_pylist(), some["text"].to_pylist(), config.classifier)
    place = DOCUMENT_SCHEMA.get_field_index("quality")
    table = table.set_column(place, DOCUMENT_SCHEMA.field("quality"), pa.array(quality))
    limits = {"strict": config.classifier.strict_threshold, "relaxed": config.classifier.relaxed_threshold}
    chosen = quality >= limits[config.keep]
    kept, rest = table.filter(pa.array(chosen)), table.filter(pa.array(~chosen))
    check_documents(kept, node)
    dropped = dropped_table((row["id"], "classifier", row["text"]) for row in rest.to_pylist())
    counts = {name: int((quality >= limit).sum()) for name, limit in limits.items()}
    return PartResult(
        {"documents": kept, "dropped": dropped}, {"funnel": asdict(funnel_of(node, kept, dropped)), **counts}
    )


def _read(paths: list[Path], columns: list[str] | None = None) -> pa.Table:
    return pa.concat_tables(pq.read_table(path, columns=columns) for path in paths)


def _count(failed: pa.Table) -> dict[str, int]:
    return dict(sorted(Counter(failed["reason"].to_pylist()).items()))
