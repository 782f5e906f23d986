"""Find the documents that go, as pieces of parallel work: buckets by band, verification and clusters by edges.

    keys of parts -> exact groups -> buckets, one piece per band -> distinct candidate edges
    -> shingles of candidates, one piece per part -> verified edges and their forest, one piece per range of edges
    -> forests merged, sixteen to one, until one is left

Pieces leave arrays in `scratch` and read those of others memory-mapped: no worker holds more than one band's keys
(eight bytes per document) or one range of edges, whatever the size of the texts, and a killed search goes on. The
result is a set of clusters with their smallest numbers, so it does not depend on how the work was cut.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qwenops.data.dedup.clusters import Edges, Numbers, bucket_edges, distinct, forest, groups
from qwenops.data.dedup.config import DedupConfig
from qwenops.data.dedup.duplicates import number_documents, read_column
from qwenops.data.dedup.minhash import jaccard
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

_EDGES_OF_PIECE = 20_000
_FORESTS_OF_PIECE = 16


class Search:
    """The files of one search.

    Args:
        config: Bands and threshold.
        documents: Parts whose texts verify the candidates.
        keys: Parts of `document_keys`, one for each of `documents` and in the same order.
        scratch: Folder for what pieces leave to each other.
    """

    def __init__(self, config: DedupConfig, documents: Sequence[Path], keys: Sequence[Path], scratch: Path) -> None:
        self.config, self.documents, self.keys, self.scratch = config, list(documents), list(keys), scratch
        counts = [pq.read_metadata(path).num_rows for path in keys]
        self.first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        scratch.mkdir(parents=True, exist_ok=True)

    def find(self, run_pieces: Pieces) -> Edges:
        """All pieces in turn: (document, survivor of its cluster) as numbers, for every document that goes."""
        np.save(self.scratch / "numbers.npy", number_documents(self.keys))
        exact = groups([read_column(self.keys, f"exact_{half}") for half in range(2)], self.load("numbers"))
        np.save(self.scratch / "exact.npy", exact)
        names = [f"band_{number:02}" for number in range(self.config.bands)]
        run_pieces(names, partial(_bucket_band, search=self), self.scratch / "bands")
        edges = np.zeros((0, 2), dtype=np.int64)
        for name in names:
            edges = distinct(np.concatenate([edges, self.load(f"bands/{name}")]))
        np.save(self.scratch / "edges.npy", edges)
        self._place_candidates(edges)
        parts = [path.stem for path in self.documents]
        run_pieces(parts, partial(_shingle_part, search=self), self.scratch / "shingles")
        ranges = [f"{start:012}" for start in range(0, len(edges), _EDGES_OF_PIECE)]
        run_pieces(ranges, partial(_verify_range, search=self), self.scratch / "verified")
        return self._merge([f"verified/{name}" for name in ranges] + ["exact"], run_pieces)

    def load(self, name: str) -> NDArray[Any]:
        """An array that a piece left, memory-mapped."""
        return np.load(self.scratch / f"{name}.npy", mmap_mode="r")

    def numbers_of(self, part: str) -> Numbers:
        """Numbers of the documents of a part (by its name without suffix), in its order: the smallest is the best."""
        place = [path.stem for path in self.documents].index(part)
        return self.load("numbers")[self.first[place] : self.first[place + 1]]

    def table(self, found: Edges) -> pa.Table:
        """`found` as `DUPLICATES_SCHEMA`, by id: what goes, why, and what survives of its cluster."""
        heads = pa.concat_tables(pq.read_table(path, columns=["id", "quality"]) for path in self.keys)
        places = self.places(found)
        gone, stays = (heads.take(pa.array(places[:, side])) for side in range(2))
        is_exact = np.isin(found[:, 0], self.load("exact")[:, 0])
        reasons = pa.array(np.where(is_exact, "exact", "near").tolist(), pa.string())
        columns = [gone["id"], reasons, stays["id"], gone["quality"], stays["quality"]]
        return pa.table(columns, schema=DUPLICATES_SCHEMA).sort_by("id")

    def places(self, numbers: Numbers) -> Numbers:
        """Where documents of these numbers stand in the parts laid end to end."""
        place = np.empty(len(self.load("numbers")), dtype=np.int64)
        place[self.load("numbers")] = np.arange(len(place))
        return place[numbers]

    def _place_candidates(self, edges: Edges) -> None:
        """Number the candidates of each part in their order there: where their shingles will lie."""
        wanted = np.zeros(self.first[-1], dtype=bool)
        wanted[np.unique(edges)] = True
        wanted = wanted[self.load("numbers")]
        before = np.concatenate([[0], np.cumsum(wanted)])
        np.save(self.scratch / "wanted.npy", wanted)
        slots = np.full((len(wanted), 2), -1, dtype=np.int32)
        part = np.searchsorted(self.first, np.flatnonzero(wanted), side="right") - 1
        numbers = self.load("numbers")[wanted]
        slots[numbers, 0] = part
        slots[numbers, 1] = np.arange(len(part)) - before[self.first[part]]
        np.save(self.scratch / "slots.npy", slots)

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


def _bucket_band(name: str, search: Search) -> dict[str, Any]:
    """Candidate edges of one band. Of exact copies only the survivor takes part: its near duplicates are theirs."""
    numbers = search.load("numbers")
    alone = np.ones(len(numbers), dtype=bool)
    alone[search.load("exact")[:, 0]] = False
    chosen = alone[numbers]
    edges = bucket_edges(read_column(search.keys, name)[chosen], numbers[chosen])
    np.save(search.scratch / "bands" / f"{name}.npy", edges)
    return {"edges": len(edges)}


def _shingle_part(name: str, search: Search) -> dict[str, Any]:
    """Distinct shingles of the candidates of one part, end to end, and where each begins."""
    part = [path.stem for path in search.documents].index(name)
    rows = np.flatnonzero(search.load("wanted")[search.first[part] : search.first[part + 1]])
    texts = pq.read_table(search.documents[part], columns=["text"])["text"].take(pa.array(rows)).to_pylist()
    sets: list[NDArray[np.uint64]] = []
    for batch in in_batches(texts):
        found = shingle(batch, search.config)
        sets += [np.unique(found.hashes[a:b]) for a, b in zip(found.starts, found.starts[1:], strict=False)]
    folder = search.scratch / "shingles"
    np.save(folder / f"{name}.npy", np.concatenate([np.zeros(0, np.uint64), *sets]))
    np.save(folder / f"{name}-starts.npy", np.cumsum([0, *map(len, sets)]))
    return {"candidates": len(sets)}


def _verify_range(name: str, search: Search) -> dict[str, Any]:
    """Edges of one range whose exact Jaccard similarity reaches the threshold, as a forest."""
    edges = search.load("edges")[int(name) : int(name) + _EDGES_OF_PIECE]
    slots, names = search.load("slots"), [path.stem for path in search.documents]
    opened: dict[int, tuple[NDArray[Any], NDArray[Any]]] = {}

    def shingles(number: int) -> NDArray[np.uint64]:
        part, slot = slots[number].tolist()
        if part not in opened:
            opened[part] = (search.load(f"shingles/{names[part]}"), search.load(f"shingles/{names[part]}-starts"))
        flat, starts = opened[part]
        return flat[starts[slot] : starts[slot + 1]]

    near = [jaccard(shingles(a), shingles(b)) >= search.config.jaccard for a, b in edges.tolist()]
    found = forest(edges[np.array(near, dtype=bool)])
    np.save(search.scratch / "verified" / f"{name}.npy", found)
    return {"edges": len(edges), "near": sum(near)}


def _merge_forests(start: str, search: Search, several: dict[str, list[str]], level: int) -> dict[str, Any]:
    name = f"merged/{level:02}-{start}"
    found = forest(np.concatenate([search.load(one) for one in several[name]]))
    np.save(search.scratch / f"{name}.npy", found)
    return {"documents": len(found)}
