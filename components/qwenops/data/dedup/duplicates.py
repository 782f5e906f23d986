"""The keys of a document, and the order of preference among documents."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qwenops.data.dedup.config import DedupConfig
from qwenops.data.dedup.minhash import keys_of
from qwenops.data.dedup.shingles import in_batches, shingle

_NUMBERED_AT_ONCE = 1 << 22


def document_keys(table: pa.Table, config: DedupConfig) -> pa.Table:
    """Id and quality of each document, its exact key (two uint64) and one LSH key per band (uint64 each)."""
    exact = [np.zeros((0, 2), dtype=np.uint64)]
    bands = [np.zeros((0, config.bands), dtype=np.uint64)]
    for batch in in_batches(table["text"].to_pylist()):
        found = shingle(batch, config)
        exact.append(found.exact)
        bands.append(keys_of(found, config))
    columns = {"id": table["id"], "quality": table["quality"]}
    for name, keys in (("exact_{}", np.concatenate(exact)), ("band_{:02}", np.concatenate(bands))):
        columns |= {name.format(number): pa.array(keys[:, number].copy()) for number in range(keys.shape[1])}
    return pa.table(columns)


def save_numbers(heads: Sequence[Path], path: Path) -> None:
    """Write the number of each document of parts with id and quality, in their order: best quality, then smallest id.

    The file holds int64 [N], a permutation: of two documents that say the same the one with the smaller number
    survives. This holds all ids and 12 bytes per document; the numbers themselves go to the file a stretch at a time.
    """
    table = pa.concat_tables(pq.read_table(head, columns=["quality", "id"]) for head in heads)
    order = pc.sort_indices(table, sort_keys=[("quality", "descending"), ("id", "ascending")]).to_numpy()
    numbers = np.lib.format.open_memmap(path, "w+", np.int64, (len(order),))
    for start in range(0, len(order), _NUMBERED_AT_ONCE):
        some = order[start : start + _NUMBERED_AT_ONCE]
        numbers[some] = np.arange(start, start + len(some))
    numbers.flush()
