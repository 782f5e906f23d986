"""Turn encoded documents into a tokens artifact: shards in seeded order, weights, held-out languages."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qwenops.contracts.tokens import ShardFacts, TokenIndex, dtype_of, write_index, write_shard
from qwenops.errors import ContractError


def write_shards(
    parts: list[Path], out: Path, weights: Mapping[str, float], vocabulary: int, end_of_text: int, seed: int
) -> TokenIndex:
    """Write every shard and the index.

    Documents are sorted by id before they are shuffled, so the order depends on the seed and the documents, not on
    how they were split into parts. One shard is in memory at a time.

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
    names = sorted({str(name) for path in parts for name in pc.unique(pq.read_table(path, columns=["shard"])["shard"])})
    buckets = {name.split("-", 1)[1] for name in names if name.startswith("train-")}
    if buckets != set(weights):
        raise ContractError(
            "the mixture was made for other documents",
            expected=f"weights of {sorted(buckets)}",
            found=f"weights of {sorted(weights)}",
            action="run mixture again",
        )
    shards: dict[str, ShardFacts] = {}
    heldout: dict[str, dict[str, int]] = {}
    for name in names:
        table = pa.concat_tables(pq.read_table(path, filters=[("shard", "=", name)]) for path in parts).sort_by("id")
        table = table.take(np.random.default_rng([seed, *name.encode()]).permutation(table.num_rows))
        documents = [row.values.to_numpy() for row in table["ids"]]
        size = int(pc.sum(table["bytes"]).as_py())
        shards[name] = write_shard(out, name, documents, table["lang"].to_pylist(), size, dtype_of(vocabulary))
        if name.startswith("heldout-"):
            _add_languages(heldout, table)
    index = TokenIndex(vocabulary, dtype_of(vocabulary), end_of_text, dict(weights), shards, heldout)
    write_index(out, index)
    return index


def _add_languages(total: dict[str, dict[str, int]], table: pa.Table) -> None:
    table = table.append_column("tokens", pc.list_value_length(table["ids"]))
    grouped = table.group_by("lang").aggregate([("tokens", "sum"), ("bytes", "sum")])
    for row in grouped.sort_by("lang").to_pylist():
        facts = total.setdefault(row["lang"], {"tokens": 0, "bytes": 0})
        facts["tokens"] += row["tokens_sum"]
        facts["bytes"] += row["bytes_sum"]
