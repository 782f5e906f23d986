"""Run deduplication: keys per part, one pass over each band, verification, one survivor per cluster."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from qwenops.contracts.document import part_paths, read_documents
from qwenops.contracts.gate import SAMPLE_ROWS, gate
from qwenops.data.dedup.config import DedupConfig
from qwenops.data.dedup.duplicates import document_keys, find_duplicates
from qwenops.data.dedup.planted import PlantedScore, plant_and_score
from qwenops.data.removal import remove_documents
from qwenops.errors import StageError
from qwenops.platform.ray_data import PartResult, map_parts
from qwenops.platform.stage import Stage

_RECALL_BAR = 0.95
_PLANTED_POOL = 20


def run(config: DedupConfig, *, documents: Path, stage: Stage) -> None:
    """Write `documents/` with one survivor per cluster, `duplicates.parquet`, `planted.json` and the funnel.

    Raises:
        StageError: the search misses planted near duplicates.
        ContractError: the gate refused what is left.
    """
    parts = part_paths(documents)
    with stage.progress(len(parts), "parts") as progress:
        function = partial(_keys_of_part, config=config)
        map_parts(
            stage.context, parts, function, stage.scratch / "keys", progress=progress, columns=["id", "text", "quality"]
        )
    score = _measure(config, documents, stage)
    duplicates = find_duplicates(config, documents, part_paths(stage.scratch / "keys", "keys"))
    pq.write_table(duplicates, stage.out / "duplicates.parquet")
    summary = remove_documents(stage, documents, duplicates)
    sample = read_documents(stage.out).to_pandas().sample(frac=1.0, random_state=stage.seed).head(SAMPLE_ROWS)
    (stage.out / "summary.md").write_text(_page(summary, score, stage), encoding="utf-8")
    for sentence in gate("documents", summary[summary["documents"] > 0], sample, stage.out).failures:
        stage.warn(sentence)


def _keys_of_part(table: pa.Table, config: DedupConfig) -> PartResult:
    return PartResult({"keys": document_keys(table, config)})


def _measure(config: DedupConfig, documents: Path, stage: Stage) -> PlantedScore:
    texts = read_documents(documents, ["id", "text"]).sort_by("id")["text"].to_pylist()
    pool = np.random.default_rng(stage.seed).permutation(len(texts))[: config.planted_documents * _PLANTED_POOL]
    score = plant_and_score([texts[number] for number in pool], config, stage.seed)
    (stage.out / "planted.json").write_text(json.dumps(asdict(score), indent=1), encoding="utf-8")
    stage.metric("planted.recall", score.recall)
    stage.metric("planted.precision", score.precision)
    if score.recall < _RECALL_BAR:
        raise StageError(
            "near duplicates are missed",
            expected=f"recall of at least {_RECALL_BAR} at Jaccard {config.jaccard}",
            found=f"{score.recall:.3f} of {score.copies} planted copies",
            action="raise dedup.bands or lower dedup.rows: a pair is found with probability 1 - (1 - s^rows)^bands",
        )
    return score


def _page(summary: pd.DataFrame, score: PlantedScore, stage: Stage) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in stage.counts["dropped"].items()) or "none"
    lines = [
        "# Deduplication",
        "",
        f"{stage.counts['read']} documents read, {stage.counts['kept']} kept; removed: {reasons}.",
        "",
        f"Planted near copies found: {score.recall:.1%} of {score.copies}; found pairs that are copies:"
        f" {score.precision:.1%} (bands alone: {score.candidate_precision:.1%}, {score.misses} near misses planted).",
        "",
        "| domain | documents | bytes | dropped |",
        "|---|---|---|---|",
        *(f"| {r.domain} | {r.documents} | {r.bytes} | {r.dropped_share:.1%} |" for r in summary.itertuples()),
    ]
    return "\n".join(lines) + "\n"
