"""Write an artifact's documents again without those that a stage removes, and account for it.

Deduplication and decontamination both end so: for every part a small table says which ids go and why, and the part is
filtered into a part of the same name.
"""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qwenops.contracts.document import (
    Funnel,
    dropped_table,
    funnel_of,
    part_paths,
    read_part,
    sample_dropped,
    write_part,
)
from qwenops.data.accounting import record_funnel
from qwenops.platform.ray.documents import map_pieces
from qwenops.platform.stage.handle import Stage

REMOVED_SCHEMA = pa.schema([("id", pa.string()), ("reason", pa.string())])


def remove_documents(stage: Stage, documents: Path, removed: Path) -> pd.DataFrame:
    """Write `documents/` without the removed ids, with funnel, dropped sample and metrics.

    Args:
        stage: The running stage; its `out` receives everything.
        documents: The artifact that is read.
        removed: Folder with a file of `REMOVED_SCHEMA` for each part that loses documents, named as the part.

    Returns:
        One row per domain of the input: domain, documents, bytes (kept), dropped_share.
    """
    work = stage.scratch / "removal"
    work.mkdir(parents=True, exist_ok=True)
    parts = part_paths(documents)
    function = partial(_filter_part, documents=documents, removed=removed, node=stage.node, out=work)
    with stage.progress(len(parts), "parts") as progress:
        summaries = map_pieces(stage.context, [path.stem for path in parts], function, work, progress=progress)
    shutil.move(work / "documents", stage.out / "documents")
    funnel = sum((Funnel(**summary["funnel"]) for summary in summaries), Funnel(stage.node))
    record_funnel(stage, funnel, sample_dropped(map(read_part, part_paths(work, "dropped"))))
    read: dict[str, int] = {}
    for summary in summaries:
        for domain, count in summary["read"].items():
            read[domain] = read.get(domain, 0) + count
    kept = {domain: funnel.by_domain.get(domain, {"documents": 0, "bytes": 0}) for domain in sorted(read)}
    return pd.DataFrame(
        [{"domain": d, **kept[d], "dropped_share": 1 - kept[d]["documents"] / read[d]} for d in sorted(read)]
    )


def _filter_part(name: str, documents: Path, removed: Path, node: str, out: Path) -> dict[str, Any]:
    table = read_part(documents / "documents" / f"{name}.parquet")
    listed = removed / f"{name}.parquet"
    reasons = pq.read_table(listed) if listed.exists() else REMOVED_SCHEMA.empty_table()
    place = pc.index_in(table["id"], value_set=reasons["id"])
    gone = table.select(["id", "url", "text"]).append_column("place", place).filter(pc.is_valid(place))
    why = reasons["reason"].take(gone["place"]).to_pylist()
    kept = table.filter(pc.is_null(place))
    ids, urls, texts = (gone[name].to_pylist() for name in ("id", "url", "text"))
    dropped = dropped_table(zip(ids, why, urls, texts, strict=True))
    write_part(kept, out / "documents" / f"{name}.parquet")
    write_part(dropped, out / "dropped" / f"{name}.parquet")
    counts = {row["values"]: row["counts"] for row in pc.value_counts(table["domain"]).to_pylist()}
    return {"funnel": vars(funnel_of(node, kept, dropped)), "read": counts}
