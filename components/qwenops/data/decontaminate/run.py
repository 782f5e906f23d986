"""Run decontamination: documents that contain evaluation items go, and the account says which and why."""

import hashlib
import json
from collections import Counter
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qwenops.contracts.document import part_paths, read_documents, texts_of
from qwenops.data.decontaminate.config import DecontaminateConfig
from qwenops.data.decontaminate.planted import planted_removed
from qwenops.data.removal import REMOVED_SCHEMA, remove_documents
from qwenops.errors import StageError
from qwenops.platform.ray.documents import PartResult, map_parts
from qwenops.platform.stage.handle import Stage
from qwenops.tasks.decontamination import open_index, reason_of
from qwenops.tasks.evalsets import leaks_of, load_available
from qwenops.tasks.overlap import Leak, OverlapIndex

_REMOVED_BAR = 0.99
_PASSAGES = 500
_MATCHES = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("task", pa.string()),
        pa.field("item", pa.string()),
        pa.field("part", pa.string()),
        pa.field("common", pa.int64()),
        pa.field("share", pa.float64()),
    ]
)


def run(config: DecontaminateConfig, *, documents: Path, stage: Stage) -> None:
    """Write `documents/` without contaminated ones, `matches.parquet`, `contamination.json` and the funnel.

    Raises:
        StageError: planted items were not found.
    """
    leaks = _leaks(config, stage)
    _measure(config, leaks, documents, stage)
    parts = part_paths(documents)
    text = json.dumps(leaks)
    index = stage.scratch / f"leaks-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    index.write_text(text, encoding="utf-8")
    function = partial(_matches_of_part, config=config, leaks=index)
    with stage.progress(len(parts), "parts") as progress:
        map_parts(stage.context, parts, function, stage.scratch / "matches", progress=progress, columns=["id", "text"])
    found = pa.concat_tables(pq.read_table(path) for path in part_paths(stage.scratch / "matches", "matches"))
    found = found.sort_by([(name, "ascending") for name in ("id", "task", "item")])
    pq.write_table(found, stage.out / "matches.parquet")
    remove_documents(stage, documents, stage.scratch / "matches" / "removed")
    _report(stage, leaks, found)


def _leaks(config: DecontaminateConfig, stage: Stage) -> list[Leak]:
    available = load_available(config.sets, config.folder, stage.context.cache_folder("evalsets"))
    for sentence in available.missing.values():
        stage.warn(f"documents are not cleaned of {sentence}")
    return leaks_of(available.items)


@lru_cache(maxsize=1)
def _opened(config: DecontaminateConfig, leaks: Path) -> OverlapIndex:
    """The index of a file of leaks; made once per worker, not once per part."""
    return open_index(config, (Leak(*row) for row in json.loads(leaks.read_text(encoding="utf-8"))))


def _matches_of_part(table: pa.Table, config: DecontaminateConfig, leaks: Path) -> PartResult:
    index = _opened(config, leaks)  # pyright: ignore[reportArgumentType]  # pydantic makes frozen models hashable
    rows: list[dict[str, Any]] = []
    removed: dict[str, str] = {}
    for name, text in zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True):
        matches = index.matches(text)
        rows += [{"id": name, **asdict(match)} for match in matches]
        removed |= {name: reason_of(matches)} if matches else {}
    reasons = pa.table([list(removed), list(removed.values())], schema=REMOVED_SCHEMA)
    return PartResult({"matches": pa.Table.from_pylist(rows, schema=_MATCHES), "removed": reasons})


def _measure(config: DecontaminateConfig, leaks: list[Leak], documents: Path, stage: Stage) -> None:
    ids = read_documents(documents, ["id"]).sort_by("id")["id"].slice(0, _PASSAGES)
    passages = texts_of(documents, ids.to_pylist())
    index = open_index(config, leaks)
    planted, found = planted_removed(index, leaks, passages, config.planted_items, config.ngram_words, stage.seed)
    if not planted:
        stage.warn("no evaluation item is long enough to be planted, so removal was not measured")
        return
    stage.metric("planted.removed", found / planted)
    if found / planted < _REMOVED_BAR:
        raise StageError(
            "planted evaluation items get through",
            expected=f"at least {_REMOVED_BAR:.0%} of {planted} found",
            found=found,
            action="lower decontaminate.min_share or decontaminate.ngram_words",
        )


def _report(stage: Stage, leaks: list[Leak], found: pa.Table) -> None:
    rows = found.to_pylist()
    sizes = Counter(task for task, _ in {(leak.task, leak.item) for leak in leaks})
    facts = {
        task: {
            "items": size,
            "items_found": len({row["item"] for row in rows if row["task"] == task}),
            "documents_removed": len({row["id"] for row in rows if row["task"] == task}),
        }
        for task, size in sorted(sizes.items())
    }
    for task, values in facts.items():
        stage.metric(f"contaminated.{task}", values["documents_removed"])
    (stage.out / "contamination.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    lines = [
        "# Decontamination",
        "",
        f"{stage.counts['read']} documents read, {stage.counts['kept']} kept.",
        "",
        "| evaluation set | items | items found | documents removed |",
        "|---|---|---|---|",
        *(f"| {task} | {v['items']} | {v['items_found']} | {v['documents_removed']} |" for task, v in facts.items()),
    ]
    (stage.out / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
