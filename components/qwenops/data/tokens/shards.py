"""Turn encoded documents into a tokens artifact: shards in seeded order, weights, held-out languages."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qwenops.contracts.tokens import ShardWriter, TokenIndex, dtype_of, write_index
from qwenops.errors import ContractError

_HEAD = ["id", "shard", "lang", "bytes", "tokens", "copies"]
_BATCH_ROWS = 500


def write_shards(
    parts: list[Path], out: Path, weights: Mapping[str, float], vocabulary: int, end_of_text: int, seed: int
) -> TokenIndex:
    """Write every shard and the index.

    Documents are sorted by id before they are shuffled, so the order depends on the seed and the documents, not on
    how they were split into parts. Each document's place is known before its ids are read, so the ids pass through
    memory a few documents at a time; what is held of all documents is their id, language and length.

    Args:
        parts: Parquet files of `encode.ENCODED_SCHEMA`.
        out: Folder of the artifact.
        weights: Bucket to its share of training tokens.
        vocabulary: Size of the tokenizer.
        end_of_text: Id at the end of every document.
        seed: Seeds the order.

    Raises:
        ContractError: a bucket with training text has no weight in the mixture.
    """
    heads = pa.concat_tables(pq.read_table(path, columns=_HEAD) for path in parts)
    names = sorted(map(str, pc.unique(heads["shard"]).to_pylist()))
    buckets = {name.split("-", 1)[1] for name in names if name.startswith("train-")}
    if buckets != set(weights):
        raise ContractError(
            "the mixture was made for other documents",
            expected=f"weights of {sorted(buckets)}",
            found=f"weights of {sorted(weights)}",
            action="run mixture again",
        )
    heldout: dict[str, dict[str, int]] = {}
    copies = heads["copies"].to_numpy()
    first = np.cumsum(copies) - copies
    places = np.empty(copies.sum(), dtype=np.int64)
    writers: dict[str, ShardWriter] = {}
    sizes: dict[str, int] = {}
    for name in names:
        rows = np.flatnonzero(pc.equal(heads["shard"], name).to_numpy())
        table = heads.take(pa.array(rows))
        order = pc.sort_indices(table["id"]).to_numpy()
        order = np.repeat(order, table["copies"].to_numpy()[order])
        order = order[np.random.default_rng([seed, *name.encode()]).permutation(len(order))]
        _place(places, first, rows[order])
        table = table.take(pa.array(order))
        lengths, languages = table["tokens"].to_pylist(), table["lang"].to_pylist()
        writers[name] = ShardWriter(out, name, lengths, languages, dtype_of(vocabulary))
        sizes[name] = int(pc.sum(table["bytes"]).as_py())
        if name.startswith("heldout-"):
            _add_languages(heldout, table)
    _put_all(parts, places, np.append(first, len(places)), writers)
    shards = {name: writer.close(sizes[name]) for name, writer in writers.items()}
    index = TokenIndex(vocabulary, dtype_of(vocabulary), end_of_text, dict(weights), shards, heldout)
    write_index(out, index)
    return index


def _place(places: NDArray[np.int64], first: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
    """Note where the copies of each row stand in its shard, whose order of rows is `rows`."""
    order = np.argsort(rows, kind="stable")
    _, begins, counts = np.unique(rows[order], return_index=True, return_counts=True)
    places[first[rows[order]] + np.arange(len(rows)) - np.repeat(begins, counts)] = order


def _put_all(
    parts: list[Path], places: NDArray[np.int64], first: NDArray[np.int64], writers: Mapping[str, ShardWriter]
) -> None:
    row = 0
    for path in parts:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=_BATCH_ROWS, columns=["shard", "ids"]):
            ids = batch["ids"]
            assert isinstance(ids, pa.ListArray), "as ENCODED_SCHEMA says"
            flat, borders = ids.values.to_numpy(), ids.offsets.to_numpy()
            for number, name in enumerate(batch["shard"].to_pylist()):
                for place in places[first[row + number] : first[row + number + 1]].tolist():
                    writers[name].put(place, flat[borders[number] : borders[number + 1]])
            row += batch.num_rows


def _add_languages(total: dict[str, dict[str, int]], table: pa.Table) -> None:
    grouped = table.group_by("lang").aggregate([("tokens", "sum"), ("bytes", "sum")])
    for row in grouped.sort_by("lang").to_pylist():
        facts = total.setdefault(row["lang"], {"tokens": 0, "bytes": 0})
        facts["tokens"] += row["tokens_sum"]
        facts["bytes"] += row["bytes_sum"]
