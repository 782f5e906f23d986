"""The keys of a document, and the order of preference among documents."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qwenops.data.dedup.clusters import Numbers
from qwenops.data.dedup.config import DedupConfig
from qwenops.data.dedup.minhash import keys_of
from qwenops.data.dedup.shingles import in_batches, shingle


def document_keys(table: pa.Table, config: DedupConfig) -> pa.Table:
    """Id, quality, exact key ("exact_0", "exact_1") and one LSH key per band ("band_00", ...) of each document."""
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


def number_documents(parts: Sequence[Path]) -> Numbers:
    """The number of each document of the key parts, in their order: best quality first, then smallest id.

    int64 [N], a permutation: of two documents that say the same the one with the smaller number survives.
    """
    table = pa.concat_tables(pq.read_table(path, columns=["quality", "id"]) for path in parts)
    order = pc.sort_indices(table, sort_keys=[("quality", "descending"), ("id", "ascending")]).to_numpy()
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.arange(len(order))
    return numbers


def read_column(parts: Sequence[Path], name: str) -> NDArray[np.uint64]:
    """One column of keys of all parts, eight bytes per document."""
    pieces = [pq.read_table(path, columns=[name])[name].to_numpy() for path in parts]
    return np.concatenate(pieces)
