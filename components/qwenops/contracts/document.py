"""What a page and a document are between data stages: columns, invariants, and the account of what was dropped.

A page is what a source delivered, as bytes; a document is clean text with its language. Both travel as parquet
parts (`pages/part-*.parquet`, `documents/part-*.parquet`), which is the unit of parallel work: a stage turns one
part into one part of the same name, so nothing depends on how many workers there are. `record_id` is the id that
the source itself gave a row ("" for none), `fetched_at` the day that the source states for it, or else the day it came
here. Every stage that drops documents writes `funnel.json` and `dropped_sample.jsonl` beside them.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qwenops.errors import ContractError

DOMAINS = ("web", "prose", "code", "math")
SPLITS = ("train", "heldout")
# The language of a program file: natural-language figures must not be mixed with it.
CODE_LANGUAGE = "code"

PAGE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("license", pa.string(), nullable=False),
        pa.field("fetched_at", pa.string(), nullable=False),
        pa.field("mime", pa.string(), nullable=False),
        pa.field("lang_hint", pa.string(), nullable=False),
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("raw", pa.binary(), nullable=False),
    ]
)
DOCUMENT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("license", pa.string(), nullable=False),
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("fetched_at", pa.string(), nullable=False),
        pa.field("lang", pa.string(), nullable=False),
        pa.field("lang_score", pa.float32(), nullable=False),
        pa.field("quality", pa.float32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)
DROPPED_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("reason", pa.string()),
        ("url", pa.string()),
        ("text", pa.string()),
        ("bytes", pa.int64()),
    ]
)
SCHEMAS = {"pages": PAGE_SCHEMA, "documents": DOCUMENT_SCHEMA}

_SAMPLE_CHARACTERS = 300
_SAMPLES_PER_REASON = 20
_ROWS_OF_GROUP = 2000


def part_paths(artifact: Path, kind: str = "documents") -> list[Path]:
    """The parquet parts of `kind` ("documents" or "pages") in an artifact, in name order.

    Raises:
        ContractError: there are none.
    """
    paths = sorted((artifact / kind).glob("part-*.parquet"))
    if not paths:
        raise ContractError(
            f"no {kind} in {artifact}",
            expected=f"{kind}/part-*.parquet",
            found="no such file",
            action="run the stage that makes it again",
        )
    return paths


def read_part(path: Path, columns: list[str] | None = None) -> pa.Table:
    """One parquet part; in a folder named after a contract ("documents", "pages") it must have that contract's columns.

    Raises:
        ContractError: it is no whole parquet file, or its columns are not the contract's.
    """
    schema = SCHEMAS.get(path.parent.name)
    try:
        with pq.ParquetFile(path) as part:
            if schema is not None:
                _check_schema(part.schema_arrow, schema, path.name)
            return part.read(columns=columns)
    except pa.ArrowInvalid as error:
        raise ContractError(
            f"{path.name} is damaged",
            expected="a whole parquet file",
            found=error,
            action="run the stage that makes it again",
        ) from None


def read_documents(artifact: Path, columns: list[str] | None = None) -> pa.Table:
    """All documents of an artifact as one table, ordered by part and row; `columns` None reads every column."""
    return pa.concat_tables(pq.read_table(path, columns=columns) for path in part_paths(artifact))


def iter_documents(artifact: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The documents of an artifact one by one as dicts, with one part in memory at a time."""
    for path in part_paths(artifact):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1000, columns=columns):
            yield from batch.to_pylist()


def texts_of(artifact: Path, ids: Sequence[str]) -> list[str]:
    """The texts of some documents, in the order of `ids`; besides them a few documents are in memory at a time."""
    wanted = pa.array(ids, pa.string())
    found: dict[str, str] = {}
    for path in part_paths(artifact):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1000, columns=["id", "text"]):
            some = batch.filter(pc.is_in(batch["id"], value_set=wanted))
            found |= zip(some["id"].to_pylist(), some["text"].to_pylist(), strict=True)
    return [found[identifier] for identifier in ids]


def sample_rows(parts: Sequence[Path], count: int, seed: int, columns: list[str] | None = None) -> pa.Table:
    """At most `count` rows of parquet parts in a random order; besides them a few rows are in memory at a time."""
    sizes = [pq.read_metadata(path).num_rows for path in parts]
    chosen = pd.Series(np.arange(sum(sizes))).sample(frac=1.0, random_state=seed).head(count).to_numpy()
    pieces: list[pa.Table] = []
    first = 0
    for path in parts:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1000, columns=columns):
            here = chosen[(chosen >= first) & (chosen < first + batch.num_rows)]
            pieces.append(pa.Table.from_batches([batch]).take(pa.array(np.sort(here) - first)))
            first += batch.num_rows
    return pa.concat_tables(pieces).take(pa.array(np.argsort(np.argsort(chosen))))


def documents_from_rows(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """A document table from plain rows; what a row leaves out of `quality`, `record_id` and `fetched_at` is 0 or ""."""
    blank = {"quality": 0.0, "record_id": "", "fetched_at": ""}
    return pa.Table.from_pylist([blank | dict(row) for row in rows], schema=DOCUMENT_SCHEMA)


def write_part(table: pa.Table, path: Path) -> None:
    """Write one parquet part (zstd); the folder is made when missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", row_group_size=_ROWS_OF_GROUP)


def check_documents(table: pa.Table, where: str) -> None:
    """Refuse a table that breaks the contract of documents.

    Raises:
        ContractError: wrong columns, repeated or empty ids, empty text, or an unknown domain or split.
    """
    _check_schema(table.schema, DOCUMENT_SCHEMA, where)
    _check_ids(table, where)
    _check_values(table, "domain", DOMAINS, where)
    _check_values(table, "split", SPLITS, where)
    empty = pc.sum(pc.equal(pc.utf8_length(table["text"]), 0)).as_py() or 0
    if empty:
        raise ContractError(f"{where}: empty text", expected="text in every document", found=f"{empty} empty")


def check_pages(table: pa.Table, where: str) -> None:
    """Refuse a table that breaks the contract of pages.

    Raises:
        ContractError: wrong columns, repeated or empty ids, or an unknown domain.
    """
    _check_schema(table.schema, PAGE_SCHEMA, where)
    _check_ids(table, where)
    _check_values(table, "domain", DOMAINS, where)


@dataclass
class Funnel:
    """The account of one data stage: what came in, what was kept, and why the rest was dropped.

    Attributes:
        stage: Node name.
        read: Records read; `kept + sum(dropped) == read`.
        kept: Records kept.
        dropped: Records dropped, by reason word.
        dropped_bytes: UTF-8 bytes of text in them, as far as the stage had their text, by reason word.
        by_domain: Domain to {"documents", "bytes"} of what was kept; bytes are UTF-8 bytes of text.
        by_language: Language to {"documents", "bytes"} of what was kept.
        by_source: Source to {"documents", "bytes"} of what was kept.
    """

    stage: str
    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    by_domain: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    by_language: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    by_source: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    dropped_bytes: dict[str, int] = field(default_factory=dict[str, int])

    def __add__(self, other: "Funnel") -> "Funnel":
        """The account of two parts together."""
        return Funnel(
            self.stage,
            self.read + other.read,
            self.kept + other.kept,
            dict(sorted((Counter(self.dropped) + Counter(other.dropped)).items())),
            _add_groups(self.by_domain, other.by_domain),
            _add_groups(self.by_language, other.by_language),
            _add_groups(self.by_source, other.by_source),
            {
                reason: self.dropped_bytes.get(reason, 0) + other.dropped_bytes.get(reason, 0)
                for reason in sorted(self.dropped_bytes.keys() | other.dropped_bytes.keys())
            },
        )

    @property
    def bytes_kept(self) -> int:
        """UTF-8 bytes of the text that was kept."""
        return sum(group["bytes"] for group in self.by_domain.values())


def funnel_of(stage: str, kept: pa.Table, dropped: pa.Table) -> Funnel:
    """The funnel of one part from its kept documents (or pages) and its dropped rows (`DROPPED_SCHEMA`)."""
    payload, language = ("text", "lang") if "text" in kept.column_names else ("raw", "lang_hint")
    sizes = pc.binary_length(kept[payload])
    words = dropped["reason"].to_pylist()
    reasons = Counter(words)
    lost = dict.fromkeys(sorted(reasons), 0)
    for reason, count in zip(words, dropped["bytes"].to_pylist(), strict=True):
        lost[reason] += count
    return Funnel(
        stage,
        kept.num_rows + dropped.num_rows,
        kept.num_rows,
        dict(sorted(reasons.items())),
        _group(kept["domain"], sizes),
        _group(kept[language], sizes),
        _group(kept["source"], sizes),
        lost,
    )


def write_funnel(out: Path, funnel: Funnel, dropped: pa.Table | None = None) -> None:
    """Write `funnel.json`, and `dropped_sample.jsonl` with a few rows for each reason word.

    The sample is the rows with the smallest ids, so it does not depend on the order of work.
    """
    (out / "funnel.json").write_text(json.dumps(asdict(funnel), indent=1, ensure_ascii=False), encoding="utf-8")
    rows = [] if dropped is None else sorted(dropped.to_pylist(), key=lambda row: (row["reason"], row["id"]))
    taken: Counter[str] = Counter()
    with (out / "dropped_sample.jsonl").open("w", encoding="utf-8") as stream:
        for row in rows:
            taken[row["reason"]] += 1
            if taken[row["reason"]] <= _SAMPLES_PER_REASON:
                stream.write(json.dumps(row | {"text": row["text"][:_SAMPLE_CHARACTERS]}, ensure_ascii=False) + "\n")


def sample_dropped(tables: Iterable[pa.Table]) -> pa.Table:
    """Of all dropped rows as many as `write_funnel` shows; one table is in memory at a time."""
    sample = DROPPED_SCHEMA.empty_table()
    for table in tables:
        rows = pa.concat_tables([sample, table]).sort_by([("reason", "ascending"), ("id", "ascending")])
        reasons = rows["reason"].to_pandas()
        sample = rows.filter(pa.array(reasons.groupby(reasons).cumcount() < _SAMPLES_PER_REASON, pa.bool_()))
    return sample


def read_funnel(artifact: Path) -> Funnel:
    """The funnel that a stage wrote beside its documents."""
    return Funnel(**json.loads((artifact / "funnel.json").read_text(encoding="utf-8")))


def dropped_table(rows: Iterable[tuple[str, str, str, str]]) -> pa.Table:
    """A table of dropped rows (id, reason word, address, text); texts are cut to a sample's length, their bytes not."""
    plain = [
        {
            "id": i,
            "reason": reason,
            "url": url,
            "text": text[:_SAMPLE_CHARACTERS],
            "bytes": len(text.encode("utf-8", "replace")),
        }
        for i, reason, url, text in rows
    ]
    return pa.Table.from_pylist(plain, schema=DROPPED_SCHEMA)


def _check_schema(found: pa.Schema, schema: pa.Schema, where: str) -> None:
    if found.names != schema.names or found.types != schema.types:
        raise ContractError(
            f"{where}: wrong columns",
            expected=_columns(schema),
            found=_columns(found),
            action="run the stage that makes it again",
        )


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{column.name} {column.type}" for column in schema)


def _check_ids(table: pa.Table, where: str) -> None:
    repeated = table.num_rows - len(pc.unique(table["id"]))
    if repeated or pc.any(pc.equal(table["id"], "")).as_py():
        raise ContractError(
            f"{where}: ids are not unique",
            expected="one non-empty id per row",
            found=f"{repeated} repeated",
            action="report this; the producer must make ids from source and url",
        )


def _check_values(table: pa.Table, column: str, allowed: tuple[str, ...], where: str) -> None:
    strange = set(pc.unique(table[column]).to_pylist()) - set(allowed)
    if strange:
        raise ContractError(f"{where}: unknown {column}", expected=str(allowed), found=sorted(map(str, strange)))


def _group(keys: pa.ChunkedArray, sizes: pa.ChunkedArray) -> dict[str, dict[str, int]]:
    grouped = pa.table({"key": keys, "size": sizes}).group_by("key").aggregate([("size", "sum"), ("size", "count")])
    rows = sorted(grouped.to_pylist(), key=lambda row: row["key"])
    return {row["key"]: {"documents": row["size_count"], "bytes": row["size_sum"]} for row in rows}


def _add_groups(left: dict[str, dict[str, int]], right: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    total: dict[str, dict[str, int]] = {}
    for key in sorted(left.keys() | right.keys()):
        sides = [side[key] for side in (left, right) if key in side]
        total[key] = {name: sum(side[name] for side in sides) for name in ("documents", "bytes")}
    return total
