"""Run deduplication: keys per part, the search for duplicates, one survivor per cluster."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from qwenops.contracts.document import part_paths, read_documents, sample_rows, texts_of
from qwenops.contracts.gate import SAMPLE_ROWS, gate
from qwenops.data.dedup.config import DedupConfig
from qwenops.data.dedup.planted import PlantedScore, plant_and_score
from qwenops.data.dedup.repeats import Cut, RepeatedParagraphs
from qwenops.data.dedup.search import DuplicateSearch
from qwenops.data.removal import remove_documents
from qwenops.errors import StageError
from qwenops.platform.ray.documents import map_pieces
from qwenops.platform.stage.handle import Stage

_RECALL_BAR = 0.95
_PLANTED_POOL = 20
_SHOWN = 10


def run(config: DedupConfig, *, documents: Path, stage: Stage) -> None:
    """Write `documents/` with one survivor per cluster, `duplicates.parquet`, `planted.json` and the funnel.

    Where paragraphs are compared too, a survivor has only those that no better one has, and `paragraphs.json` says so.

    Raises:
        StageError: the search misses planted near duplicates.
        ContractError: the gate refused what is left.
    """
    parts = part_paths(documents)
    search = DuplicateSearch(config, parts, stage.scratch / "search")
    with stage.progress(len(parts), "parts") as progress:
        search.index(partial(map_pieces, stage.context, progress=progress))
    score = _measure(config, documents, stage)
    found = search.find(partial(map_pieces, stage.context))
    duplicates = search.table(found)
    pq.write_table(duplicates, stage.out / "duplicates.parquet")
    removed = stage.scratch / "removed"
    removed.mkdir(parents=True, exist_ok=True)
    for part in search.parts:
        pq.write_table(search.removed(part), removed / f"{part}.parquet")
    cut = None
    if config.paragraphs.min_words:
        repeats = RepeatedParagraphs(config.paragraphs, search, removed, stage.scratch / "paragraphs")
        cut = repeats.cut(partial(map_pieces, stage.context))
        documents, removed = repeats.scratch, repeats.scratch / "removed"
        (stage.out / "paragraphs.json").write_text(json.dumps(asdict(cut), indent=1, ensure_ascii=False), "utf-8")
    summary = remove_documents(stage, documents, removed)
    sample = sample_rows(part_paths(stage.out), SAMPLE_ROWS, stage.seed).to_pandas()
    (stage.out / "summary.md").write_text(_page(summary, score, duplicates, cut, stage), encoding="utf-8")
    for sentence in gate("documents.json", summary[summary["documents"] > 0], sample, stage.out).failures:
        stage.warn(sentence)


def _measure(config: DedupConfig, documents: Path, stage: Stage) -> PlantedScore:
    ids = read_documents(documents, ["id"]).sort_by("id")["id"]
    pool = np.random.default_rng(stage.seed).permutation(len(ids))[: config.planted_documents * _PLANTED_POOL]
    texts = texts_of(documents, ids.take(pa.array(pool)).to_pylist())
    score = plant_and_score(texts, config, stage.seed)
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


def _page(summary: pd.DataFrame, score: PlantedScore, duplicates: pa.Table, cut: Cut | None, stage: Stage) -> str:
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
        "",
        "Of documents that say the same the one of best quality survives, of equal ones the one with the smallest id;"
        " documents that are linked through others say the same. The first ones removed (all: duplicates.parquet):",
        "",
        "| removed | reason | quality | survivor | its quality |",
        "|---|---|---|---|---|",
        *(
            f"| {r['id']} | {r['reason']} | {r['quality']:.3f} | {r['survivor']} | {r['survivor_quality']:.3f} |"
            for r in duplicates.slice(0, _SHOWN).to_pylist()
        ),
        *(_paragraph_lines(cut) if cut else ()),
    ]
    return "\n".join(lines) + "\n"


def _paragraph_lines(cut: Cut) -> list[str]:
    groups = {"domain": cut.by_domain, "source": cut.by_source}
    return [
        "",
        "Paragraphs that a better document has too were cut from those that are kept:",
        "",
        "| cut from | | documents | paragraphs | characters |",
        "|---|---|---|---|---|",
        *(
            f"| {kind} | {name} | {lost['documents']} | {lost['paragraphs']} | {lost['characters']} |"
            for kind, losses in groups.items()
            for name, lost in losses.items()
        ),
        "",
        "Those that most documents had:",
        "",
        "| paragraph | documents | survivor |",
        "|---|---|---|",
        *(f"| {_in_cell(row['text'])} | {row['documents']} | {row['survivor']} |" for row in cut.examples),
    ]


def _in_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
