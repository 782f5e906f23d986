"""Find the documents that go: one pass over each band for candidates, exact Jaccard similarity to decide.

The keys of a band are read as one column of all parts, so memory is eight bytes per document; of the texts only those
of candidates are read again.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qwenops.contracts.document import iter_documents
from qwenops.data.dedup.clusters import Pair, candidate_pairs, ranks, survivors
from qwenops.data.dedup.config import DedupConfig
from qwenops.data.dedup.minhash import jaccard, keys_of, shingles
from qwenops.data.dedup.shingles import in_batches, shingle


def document_keys(table: pa.Table, config: DedupConfig) -> pa.Table:
    """Id, quality, exact key (16 bytes) and one LSH key per band ("band_00", ...) of each document of `table`."""
    exact: list[bytes] = []
    bands: list[NDArray[np.uint64]] = [np.zeros((0, config.bands), dtype=np.uint64)]
    for batch in in_batches(table["text"].to_pylist()):
        found = shingle(batch, config)
        exact += [row.tobytes() for row in found.exact]
        bands.append(keys_of(found, config))
    columns = {"id": table["id"], "quality": table["quality"], "exact": pa.array(exact, pa.binary(16))}
    keys = np.concatenate(bands)
    columns |= {f"band_{number:02}": pa.array(keys[:, number].copy()) for number in range(config.bands)}
    return pa.table(columns)


def find_duplicates(config: DedupConfig, documents: Path, parts: list[Path]) -> pa.Table:
    """Documents to remove, ordered by id.

    Args:
        config: Bands and threshold.
        documents: The artifact whose texts verify the candidates.
        parts: Parquet files of `document_keys`.

    Returns:
        id, reason ("exact" or "near") and the survivor of the document's cluster.
    """
    heads = pa.concat_tables(pq.read_table(path, columns=["id", "quality", "exact"]) for path in parts)
    ids = heads["id"].to_pylist()
    exact = _exact_pairs(heads["exact"].to_pylist())
    near = _verified(candidate_pairs(_bands(config, parts)) - exact, ids, documents, config)
    rank = ranks(heads["quality"].to_pylist(), ids)
    of_exact, of_all = survivors(len(ids), exact, rank), survivors(len(ids), exact | near, rank)
    rows = [
        {"id": ids[i], "reason": "near" if of_exact[i] == i else "exact", "survivor": ids[int(of_all[i])]}
        for i in range(len(ids))
        if of_all[i] != i
    ]
    schema = pa.schema([("id", pa.string()), ("reason", pa.string()), ("survivor", pa.string())])
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["id"]), schema=schema)


def _exact_pairs(keys: list[bytes]) -> set[Pair]:
    first: dict[bytes, int] = {}
    return {(first[key], number) for number, key in enumerate(keys) if first.setdefault(key, number) != number}


def _bands(config: DedupConfig, parts: list[Path]) -> Iterator[NDArray[np.uint64]]:
    for number in range(config.bands):
        name = f"band_{number:02}"
        yield np.concatenate([pq.read_table(path, columns=[name])[name].to_numpy() for path in parts])


def _verified(candidates: set[Pair], ids: list[str], documents: Path, config: DedupConfig) -> set[Pair]:
    """The candidates whose exact Jaccard similarity reaches the threshold."""
    wanted = {ids[number]: number for pair in candidates for number in pair}
    found = {
        wanted[row["id"]]: shingles(row["text"], config)
        for row in iter_documents(documents, ["id", "text"])
        if row["id"] in wanted
    }
    return {pair for pair in candidates if jaccard(found[pair[0]], found[pair[1]]) >= config.jaccard}
