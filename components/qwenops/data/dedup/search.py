"""Find the documents that go, as pieces of work: buckets by ranges of keys, verification by ranges of documents.

    keys of parts, sorted -> numbers of documents -> exact groups, one piece per range of keys
    -> buckets, one piece per band and range -> shingles of candidates, one piece per part
    -> verified edges and their forest, one piece per range of documents -> forests merged, sixteen to one

Pieces leave arrays in `scratch` and read their slices of what others left memory-mapped: a worker holds one part, one
range of keys or one range of edges, whatever the number of documents and the size of the texts, and a killed search
goes on. The result is a set of clusters with their smallest numbers, so it does not depend on how the work was cut.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qwenops.contracts.document import read_part
from qwenops.data.dedup.clusters import (
    Edges,
    Numbers,
    bucket_edges,
    connected_components,
    find_positions,
    group_by_keys,
    unique_edges,
)
from qwenops.data.dedup.config import DedupConfig
from qwenops.data.dedup.duplicates import document_keys, save_numbers
from qwenops.data.dedup.minhash import jaccard
from qwenops.data.dedup.ranges import ROWS_OF_RANGE, KeyRanges, ranges_for
from qwenops.data.dedup.shingles import in_batches, shingle

# Runs a function on every name, in parallel, and returns its summaries in order; `out` remembers finished names.
Pieces = Callable[[Sequence[str], Callable[[str], dict[str, Any]], Path], list[dict[str, Any]]]

DUPLICATES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("survivor", pa.string()),
        pa.field("quality", pa.float32()),
        pa.field("survivor_quality", pa.float32()),
    ]
)

_EDGES_OF_PIECE = 100_000
# More pieces would open the buckets' files too often; beyond, a piece grows.
_VERIFYING_PIECES = 4096
_FORESTS_OF_PIECE = 16


class DuplicateSearch:
    """The files of one search: `index`, then `find`, then `table` and `removed`.

    Args:
        config: Bands and threshold.
        documents: Parts of documents.
        scratch: Folder for what pieces leave to each other.
        rows_of_range: Keys that a piece may hold.
    """

    def __init__(
        self, config: DedupConfig, documents: Sequence[Path], scratch: Path, rows_of_range: int = ROWS_OF_RANGE
    ) -> None:
        self.config, self.scratch, self.rows_of_range = config, scratch, rows_of_range
        self.parts = {path.stem: path for path in documents}
        self._counts: list[int] = []

    def index(self, run_pieces: Pieces) -> None:
        """Leave the keys of each part."""
        found = run_pieces(list(self.parts), partial(_index_part, search=self), self.scratch / "keys")
        self._counts = [summary["documents"] for summary in found]

    @cached_property
    def ranges(self) -> KeyRanges:
        """The ranges of keys."""
        return ranges_for(sum(self._counts), self.rows_of_range)

    @cached_property
    def bands(self) -> list[str]:
        """Names of the buckets' files: "band_03-range-0000001"."""
        return [f"band_{n:02}-{one}" for n in range(self.config.bands) for one in self.ranges.names]

    @cached_property
    def _places(self) -> dict[str, slice]:
        """Where each part's documents are when all parts are laid end to end."""
        ends = np.cumsum(self._counts).tolist()
        return {part: slice(end - n, end) for part, n, end in zip(self.parts, self._counts, ends, strict=True)}

    def find(self, run_pieces: Pieces) -> Edges:
        """All other pieces in turn: (document, survivor of its cluster) as numbers, for every document that goes."""
        save_numbers([self.scratch / "keys" / f"{part}.parquet" for part in self.parts], self.scratch / "numbers.npy")
        run_pieces(self.ranges.names, partial(_group_range, search=self), self.scratch / "exact")
        exact = np.concatenate([self.load(f"exact/{name}") for name in self.ranges.names])
        exact = exact[np.argsort(exact[:, 0])]
        np.save(self.scratch / "exact.npy", exact)
        np.save(self.scratch / "copies.npy", exact[:, 0])
        counted = run_pieces(self.bands, partial(_bucket_range, search=self), self.scratch / "bands")
        self._place_candidates()
        run_pieces(list(self.parts), partial(_shingle_part, search=self), self.scratch / "shingles")
        ranges = self._verifying_ranges(sum(summary["edges"] for summary in counted))
        run_pieces(ranges, partial(_verify_range, search=self), self.scratch / "verified")
        found = self._merge([f"verified/{name}" for name in ranges] + ["exact"], run_pieces)
        np.save(self.scratch / "gone.npy", found[:, 0])
        return found

    def load(self, name: str) -> NDArray[Any]:
        """An array that a piece left, memory-mapped."""
        return np.load(self.scratch / f"{name}.npy", mmap_mode="r")

    def numbers_of(self, part: str) -> Numbers:
        """Numbers of the documents of a part (by its name without suffix), in its order: the smallest is the best."""
        return self.load("numbers")[self._places[part]]

    def in_range(self, columns: Sequence[int], name: str) -> tuple[NDArray[np.uint64], Numbers]:
        """Columns of keys of all parts in a range of the first one, uint64 [columns, N], and the documents' numbers."""
        keys, numbers = [np.zeros((len(columns), 0), np.uint64)], [np.zeros(0, np.int64)]
        for part in self.parts:
            stored, rows = self.load(f"keys/{part}"), self.load(f"keys/{part}-rows")
            here = self.ranges.slice_of(name, stored[columns[0]])
            keys.append(np.stack([stored[column][here] for column in columns]))
            numbers.append(self.numbers_of(part)[rows[columns[0]][here]])
        return np.concatenate(keys, axis=1), np.concatenate(numbers)

    def table(self, found: Edges) -> pa.Table:
        """`found` as `DUPLICATES_SCHEMA`, by id: what goes, why, and what survives of its cluster."""
        wanted = np.unique(found)
        heads = self._heads(wanted)
        gone, stays = (heads.take(pa.array(np.searchsorted(wanted, found[:, side]))) for side in range(2))
        reasons = pa.array(self._reasons(found[:, 0]), pa.string())
        columns = [gone["id"], reasons, stays["id"], gone["quality"], stays["quality"]]
        return pa.table(columns, schema=DUPLICATES_SCHEMA).sort_by("id")

    def removed(self, part: str) -> pa.Table:
        """Id and reason of the documents that a part loses."""
        numbers = self.numbers_of(part)
        gone, _ = find_positions(self.load("gone"), numbers)
        ids = pq.read_table(self.scratch / "keys" / f"{part}.parquet", columns=["id"])["id"].filter(pa.array(gone))
        return pa.table({"id": ids, "reason": pa.array(self._reasons(numbers[gone]), pa.string())})

    def _reasons(self, numbers: Numbers) -> list[str]:
        is_copy, _ = find_positions(self.load("copies"), numbers)
        return np.where(is_copy, "exact", "near").tolist()

    def _heads(self, wanted: Numbers) -> pa.Table:
        """Id and quality of documents by ascending number; one part is in memory at a time."""
        pieces: list[pa.Table] = []
        for part in self.parts:
            inside, places = find_positions(wanted, self.numbers_of(part))
            head = pq.read_table(self.scratch / "keys" / f"{part}.parquet").filter(pa.array(inside))
            pieces.append(head.append_column("place", pa.array(places[inside])))
        return pa.concat_tables(pieces).sort_by("place")

    def _place_candidates(self) -> None:
        """Mark the documents that are in an edge, and say where the shingles of each will lie: its part, its turn."""
        numbers = sum(self._counts)
        wanted = np.zeros(numbers, dtype=bool)
        for name in self.bands:
            wanted[self.load(f"bands/{name}")] = True
        np.save(self.scratch / "wanted.npy", wanted)
        slots = np.lib.format.open_memmap(self.scratch / "slots.npy", "w+", np.int32, (numbers, 2))
        for place, part in enumerate(self.parts):
            chosen = self.numbers_of(part)[wanted[self.numbers_of(part)]]
            slots[chosen] = np.stack([np.full(len(chosen), place), np.arange(len(chosen))], axis=1)
        slots.flush()

    def _verifying_ranges(self, edges: int) -> list[str]:
        """Ranges of numbers, "first-after", that hold about as many candidates each.

        An edge lies in the range of its smaller end.
        """
        candidates = np.flatnonzero(self.load("wanted"))
        count = min(-(-edges // _EDGES_OF_PIECE), _VERIFYING_PIECES, len(candidates))
        borders = [*candidates[np.arange(count) * len(candidates) // max(count, 1)].tolist(), len(self.load("wanted"))]
        return [f"{first:012}-{after:012}" for first, after in pairwise(borders)]

    def _merge(self, names: list[str], run_pieces: Pieces) -> Edges:
        level = 0
        while len(names) > 1 or level == 0:
            several = {
                f"merged/{level:02}-{start:09}": names[start : start + _FORESTS_OF_PIECE]
                for start in range(0, len(names), _FORESTS_OF_PIECE)
            }
            work = partial(_merge_forests, search=self, several=several, level=level)
            starts = [name.rpartition("-")[2] for name in several]
            run_pieces(starts, work, self.scratch / "merged" / f"{level:02}")
            names, level = list(several), level + 1
        return self.load(names[0])


def _index_part(name: str, search: DuplicateSearch) -> dict[str, Any]:
    """Keys of a part, each column sorted (the second half of the exact key as the first), and whose row each is."""
    table = document_keys(read_part(search.parts[name], ["id", "text", "quality"]), search.config)
    pq.write_table(table.select(["id", "quality"]), search.scratch / "keys" / f"{name}.parquet")
    keys = np.stack([column.to_numpy() for column in table.columns[2:]])
    rows = np.argsort(keys, axis=1).astype(np.int32)
    rows[1] = rows[0]
    np.save(search.scratch / "keys" / f"{name}.npy", np.take_along_axis(keys, rows.astype(np.int64), axis=1))
    np.save(search.scratch / "keys" / f"{name}-rows.npy", rows)
    return {"documents": table.num_rows}


def _group_range(name: str, search: DuplicateSearch) -> dict[str, Any]:
    """Exact copies of one range of keys, as a forest."""
    keys, numbers = search.in_range((0, 1), name)
    found = group_by_keys(list(keys), numbers)
    np.save(search.scratch / "exact" / f"{name}.npy", found)
    return {"copies": len(found)}


def _bucket_range(name: str, search: DuplicateSearch) -> dict[str, Any]:
    """Candidate edges of one band and range, int64 [2, E], ascending.

    Of exact copies only the survivor takes part: its near duplicates are theirs.
    """
    band, _, piece = name.partition("-")
    (keys,), numbers = search.in_range((2 + int(band.removeprefix("band_")),), piece)
    is_copy, _ = find_positions(search.load("copies"), numbers)
    edges = bucket_edges(keys[~is_copy], numbers[~is_copy])
    np.save(search.scratch / "bands" / f"{name}.npy", np.ascontiguousarray(edges.T))
    return {"edges": len(edges)}


def _shingle_part(name: str, search: DuplicateSearch) -> dict[str, Any]:
    """Distinct shingles of the candidates of one part, end to end, and where each begins."""
    rows = np.flatnonzero(search.load("wanted")[search.numbers_of(name)])
    texts = pq.read_table(search.parts[name], columns=["text"])["text"].take(pa.array(rows)).to_pylist()
    sets: list[NDArray[np.uint64]] = []
    for batch in in_batches(texts):
        found = shingle(batch, search.config)
        sets += [np.unique(found.hashes[a:b]) for a, b in zip(found.starts, found.starts[1:], strict=False)]
    folder = search.scratch / "shingles"
    np.save(folder / f"{name}.npy", np.concatenate([np.zeros(0, np.uint64), *sets]))
    np.save(folder / f"{name}-starts.npy", np.cumsum([0, *map(len, sets)]))
    return {"candidates": len(sets)}


def _edges_of_range(name: str, search: DuplicateSearch) -> Edges:
    """Distinct candidate edges of all bands whose smaller document lies in a range of numbers."""
    first, after = map(int, name.split("-"))
    slices = [np.zeros((2, 0), np.int64)]
    for band in search.bands:
        edges = search.load(f"bands/{band}")
        begin, end = np.searchsorted(edges[0], (first, after))
        slices.append(edges[:, begin:end])
    return unique_edges(np.concatenate(slices, axis=1).T)


def _verify_range(name: str, search: DuplicateSearch) -> dict[str, Any]:
    """Edges of one range whose exact Jaccard similarity reaches the threshold, as a forest."""
    edges = _edges_of_range(name, search)
    slots, names = search.load("slots"), list(search.parts)
    opened: dict[int, tuple[NDArray[Any], NDArray[Any]]] = {}

    def shingles(number: int) -> NDArray[np.uint64]:
        part, slot = slots[number].tolist()
        if part not in opened:
            opened[part] = (search.load(f"shingles/{names[part]}"), search.load(f"shingles/{names[part]}-starts"))
        flat, starts = opened[part]
        return flat[starts[slot] : starts[slot + 1]]

    near = [jaccard(shingles(a), shingles(b)) >= search.config.jaccard for a, b in edges.tolist()]
    found = connected_components(edges[np.array(near, dtype=bool)])
    np.save(search.scratch / "verified" / f"{name}.npy", found)
    return {"edges": len(edges), "near": sum(near)}


def _merge_forests(start: str, search: DuplicateSearch, several: dict[str, list[str]], level: int) -> dict[str, Any]:
    name = f"merged/{level:02}-{start}"
    found = connected_components(np.concatenate([search.load(one) for one in several[name]]))
    np.save(search.scratch / f"{name}.npy", found)
    return {"documents": len(found)}
