"""Turn pages into documents with Ray Data, one task per part."""

import json
from dataclasses import asdict
from functools import partial, reduce
from operator import add
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from qwenops.contracts.document import Funnel, check_documents, funnel_of, part_paths, sample_dropped
from qwenops.data.accounting import record_funnel
from qwenops.data.ingest.config import IngestConfig
from qwenops.data.ingest.documents import ingest_pages
from qwenops.platform.ray.documents import PartResult, map_parts, publish
from qwenops.platform.stage.handle import Stage


def run(config: IngestConfig, *, pages: Path, stage: Stage) -> None:
    """Write `documents/part-*.parquet`, the funnel and `languages.json` (agreement with the declared languages).

    Raises:
        ContractError: no document is left.
    """
    parts = part_paths(pages, "pages")
    work = stage.scratch / "parts"
    with stage.progress(len(parts), "parts") as progress:
        summaries = map_parts(
            stage.context, parts, partial(_work, config=config, node=stage.node), work, progress=progress
        )
    publish(work, "documents", stage.out)
    dropped = sample_dropped(map(pq.read_table, part_paths(work, "dropped")))
    funnel = reduce(add, (Funnel(**summary["funnel"]) for summary in summaries))
    record_funnel(stage, funnel, dropped)
    _report_languages([summary["agreement"] for summary in summaries], stage)


def _work(table: pa.Table, config: IngestConfig, node: str) -> PartResult:
    kept, dropped, agreement = ingest_pages(table, config)
    check_documents(kept, node)
    funnel = asdict(funnel_of(node, kept, dropped))
    return PartResult({"documents": kept, "dropped": dropped}, {"funnel": funnel, "agreement": agreement})


def _report_languages(agreements: list[dict[str, list[int]]], stage: Stage) -> None:
    total: dict[str, list[int]] = {}
    for agreement in agreements:
        for language, (right, seen) in agreement.items():
            before = total.setdefault(language, [0, 0])
            total[language] = [before[0] + right, before[1] + seen]
    table = {language: {"right": right, "pages": seen} for language, (right, seen) in sorted(total.items())}
    (stage.out / "languages.json").write_text(json.dumps(table, indent=1), encoding="utf-8")
    pages = sum(row["pages"] for row in table.values())
    if pages:
        stage.metric("language.accuracy", sum(row["right"] for row in table.values()) / pages)
