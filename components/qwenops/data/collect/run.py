"""Collect pages from the configured sources into parquet parts; a source that cannot be reached is skipped."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from qwenops.contracts.document import (
    DROPPED_SCHEMA,
    PAGE_SCHEMA,
    Funnel,
    check_pages,
    dropped_table,
    funnel_of,
    part_paths,
    sample_dropped,
    sample_rows,
    write_part,
)
from qwenops.contracts.gate import SAMPLE_ROWS, gate
from qwenops.data.accounting import record_funnel
from qwenops.data.collect.config import CollectConfig
from qwenops.data.collect.pages import Page, read_source
from qwenops.data.collect.records import UNSUPPORTED
from qwenops.errors import PlatformError, StageError
from qwenops.platform.stage.handle import Stage

_LOSSES = ("truncated", "unreadable")
_DROPPED_AT_ONCE = 10_000


def run(config: CollectConfig, *, stage: Stage) -> None:
    """Write `pages/part-*.parquet`, `sources.json`, the funnel and the gate's page.

    Raises:
        StageError: no source could be reached.
        ContractError: nothing usable was in the sources, or the gate refused the pages.
    """
    cache = stage.context.cache_folder("downloads")
    writer = PartWriter(stage.out / "pages", config.part_bytes, Funnel(stage.node))
    record: list[dict[str, Any]] = []
    with stage.progress(len(config.sources), "sources") as progress:
        for source in config.sources:
            facts: dict[str, Any] = {"source": source.name, "kind": source.kind, "error": ""}
            try:
                facts |= writer.add(read_source(source, config, cache))
                _warn_of_losses(stage, source.name, facts["dropped"])
            except PlatformError as error:
                facts["error"] = str(error)
                stage.warn(f"source {source.name} is skipped: {error.message}; {error.found}")
            record.append(facts)
            progress.advance(1, source.name)
    writer.close()
    (stage.out / "sources.json").write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
    missing = [facts["source"] for facts in record if facts["error"]]
    stage.metric("sources.missing", len(missing))
    if len(missing) == len(config.sources):
        raise StageError(
            "no source could be reached",
            expected="at least one of collect.sources",
            found=", ".join(missing),
            action="check the network and the paths in collect.sources; the reasons stand above",
        )
    record_funnel(stage, writer.funnel, writer.sample)
    _gate(stage, record)


@dataclass
class PartWriter:
    """Cuts pages into parquet parts of about `part_bytes` raw bytes and counts them.

    Attributes:
        folder: Where the parts go.
        part_bytes: Raw bytes of a part.
        funnel: The account so far.
        sample: The dropped records that the account shows.
    """

    folder: Path
    part_bytes: int
    funnel: Funnel
    sample: pa.Table = field(default_factory=DROPPED_SCHEMA.empty_table)
    _pages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    _dropped: list[tuple[str, str, str, str]] = field(default_factory=list[tuple[str, str, str, str]])
    _bytes: int = 0
    _parts: int = 0

    def add(self, pages: Iterable[Page]) -> dict[str, Any]:
        """Take the pages of one source; returns how many and how many bytes were kept, by domain, and the dropped."""
        facts: dict[str, Any] = {"pages": 0, "bytes": 0, "domains": {}, "dropped": {}}
        for page in pages:
            if page.reason:
                facts["dropped"][page.reason] = facts["dropped"].get(page.reason, 0) + 1
                self._dropped.append((page.id, page.reason, page.url, page.raw[:1000].decode("utf-8", "replace")))
                if len(self._dropped) >= _DROPPED_AT_ONCE:
                    self._count(PAGE_SCHEMA.empty_table())
                continue
            facts["pages"] += 1
            facts["bytes"] += len(page.raw)
            facts["domains"][page.domain] = facts["domains"].get(page.domain, 0) + len(page.raw)
            row = asdict(page)
            del row["reason"]
            self._pages.append(row)
            self._bytes += len(page.raw)
            if self._bytes >= self.part_bytes:
                self._flush()
        return facts

    def close(self) -> None:
        """Write the last part and add the dropped records to the funnel."""
        self._flush()
        self._count(PAGE_SCHEMA.empty_table())

    def _flush(self) -> None:
        if not self._pages:
            return
        table = pa.Table.from_pylist(self._pages, schema=PAGE_SCHEMA)
        path = self.folder / f"part-{self._parts:05}.parquet"
        check_pages(table, path.name)
        write_part(table, path)
        self._count(table)
        self._pages, self._bytes, self._parts = [], 0, self._parts + 1

    def _count(self, kept: pa.Table) -> None:
        dropped = dropped_table(self._dropped)
        self.funnel += funnel_of(self.funnel.stage, kept, dropped)
        self.sample = sample_dropped([self.sample, dropped])
        self._dropped = []


def _warn_of_losses(stage: Stage, source: str, dropped: Mapping[str, int]) -> None:
    """Warn of files that broke off, since they may have held more than is counted for them, and of foreign ones."""
    if lost := {reason: dropped[reason] for reason in _LOSSES if reason in dropped}:
        found = ", ".join(f"{count} {reason}" for reason, count in lost.items())
        stage.warn(f"source {source} was not read whole: {found}; see dropped_sample.jsonl")
    if foreign := {reason: count for reason, count in dropped.items() if reason.startswith(UNSUPPORTED)}:
        found = ", ".join(f"{count} {reason.removeprefix(UNSUPPORTED)}" for reason, count in foreign.items())
        stage.warn(f"source {source} holds what is not read as documents: {found}; see the README of collect")


def _gate(stage: Stage, record: list[dict[str, Any]]) -> None:
    reached = [facts for facts in record if not facts["error"]]
    summary = pd.DataFrame(
        {
            "source": [facts["source"] for facts in reached],
            "domain": [max(facts["domains"], key=facts["domains"].get, default="") for facts in reached],
            "pages": [facts["pages"] for facts in reached],
            "bytes": [facts["bytes"] for facts in reached],
        }
    )
    columns = ["id", "source", "domain", "license", "mime", "raw"]
    sample = sample_rows(part_paths(stage.out, "pages"), SAMPLE_ROWS, stage.seed, columns).to_pandas()
    sample["raw_bytes"] = sample.pop("raw").str.len()
    for sentence in gate("pages.json", summary, sample, stage.out).failures:
        stage.warn(sentence)
