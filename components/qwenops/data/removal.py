"""Write an artifact's documents again without those that a stage removes, and account for it.

Deduplication and decontamination both end so: a small table says which ids go and why, and every part is
filtered into a part of the same name.
"""

import shutil
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qwenops.contracts.document import Funnel, dropped_table, funnel_of, part_paths, read_part, sample_dropped
from qwenops.data.accounting import account
from qwenops.platform.ray_data import PartResult, map_parts
from qwenops.platform.stage import Stage

REMOVED_SCHEMA = pa.schema([("id", pa.string()), ("reason", pa.string())])


def remove_documents(stage: Stage, documents: Path, removed: pa.Table) -> pd.DataFrame:
    """Write `documents/` without the ids of `removed`, with funnel, dropped sample and metrics.

    Args:
        stage: The running stage; its `out` receives everything.
        documents: The artifact that is read.
        removed: `REMOVED_SCHEMA`, one row per document to drop.

    Returns:
        One row per domain of the input: domain, documents, bytes (kept), dropped_share.
    """
    work = stage.scratch / "removal"
    work.mkdir(parents=True, exist_ok=True)
    pq.write_table(removed.select(["id", "reason"]), work / "removed.parquet")
    parts = part_paths(documents)
    function = partial(_filter_part, removed=work / "removed.parquet", node=stage.node)
    with stage.progress(len(parts), "parts") as progress:
        summaries = map_parts(stage.context, parts, function, work, progress=progress)
    shutil.move(work / "documents", stage.out / "documents")
    funnel = sum((Funnel(**summary["funnel"]) for summary in summaries), Funnel(stage.node))
    account(stage, funnel, sample_dropped(map(read_part, part_paths(work, "dropped"))))
    read: dict[str, int] = {}
    for summary in summaries:
        for domain, count in summary["read"].items():
            read[domain] = read.get(domain, 0) + count
    kept = {domain: funnel.by_domain.get(domain, {"documents": 0, "bytes": 0}) for domain in sorted(read)}
    return pd.DataFrame(
        [{"domain": d, **kept[d], "dropped_share": 1 - kept[d]["documents"] / read[d]} for d in sorted(read)]
    )


def _filter_part(table: pa.Table, removed: Path, node: str) -> PartResult:
    reasons = {row["id"]: row["reason"] for row in pq.read_table(removed).to_pylist()}
    goes = pa.array([name in reasons for name in table["id"].to_pylist()], type=pa.bool_())
    kept, gone = table.filter(pc.invert(goes)), table.filter(goes).select(["id", "text"])
    dropped = dropped_table((row["id"], reasons[row["id"]], row["text"]) for row in gone.to_pylist())
    counts = {row["values"]: row["counts"] for row in pc.value_counts(table["domain"]).to_pylist()}
    funnel = funnel_of(node, kept, dropped)
    return PartResult({"documents": kept, "dropped": dropped}, {"funnel": vars(funnel), "read": counts})
