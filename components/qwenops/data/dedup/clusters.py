"""From shared buckets to clusters: candidate edges, and connected components that can be found in pieces and merged.

Documents are numbered by preference: number 0 is the one that survives every cluster it is in. The smallest number of
a cluster is then its survivor, whatever order, parts or workers the edges came in, and buckets too large for all of
their pairs are thinned in the same way every time.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csgraph

# In a bucket up to this size every pair is a candidate; a larger one is boilerplate, and a chain through it is enough.
_ALL_PAIRS = 50

Edges = NDArray[np.int64]
Numbers = NDArray[np.int64]


def bucket_edges(keys: NDArray[np.uint64], numbers: Numbers) -> Edges:
    """Pairs of documents that share a key: int64 [E, 2], the smaller number first, each pair once, sorted.

    In a bucket of more than 50 every document is paired with the best one and with the next one only.

    Args:
        keys: uint64 [N], one band's key of each document.
        numbers: int64 [N], numbers of the documents, all different.
    """
    if not len(keys):
        return np.zeros((0, 2), dtype=np.int64)
    order = np.lexsort((numbers, keys))
    keys, numbers = keys[order], numbers[order]
    same = np.concatenate([[False], keys[1:] == keys[:-1], [False]])
    shared = same[1:] | same[:-1]
    keys, numbers = keys[shared], numbers[shared]
    begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)])
    sizes = np.diff(np.append(begins, len(keys)))
    size_of, begin_of = np.repeat(sizes, sizes), np.repeat(begins, sizes)
    place = np.arange(len(keys))
    small, large = size_of <= _ALL_PAIRS, size_of > _ALL_PAIRS
    pairs = [(begin_of[large], place[large]), (place[large] - 1, place[large])]
    for distance in range(1, min(_ALL_PAIRS, int(sizes.max(initial=0)))):
        right = place[small & (place - begin_of >= distance)]
        pairs.append((right - distance, right))
    left, right = (np.concatenate(side) for side in zip(*pairs, strict=True))
    inside = (left >= begin_of[right]) & (left < right)
    return unique_edges(np.stack([numbers[left[inside]], numbers[right[inside]]], axis=1))


def candidate_pairs(bands: Iterable[NDArray[np.uint64]]) -> Edges:
    """Pairs of documents, numbered in order, that share a key in at least one band: int64 [E, 2], sorted."""
    found = [bucket_edges(keys, np.arange(len(keys))) for keys in bands]
    return unique_edges(np.concatenate(found)) if found else np.zeros((0, 2), np.int64)


def unique_edges(edges: Edges) -> Edges:
    """Each edge once, sorted."""
    if not len(edges):
        return edges
    base = int(edges.max()) + 1  # below 2**31 documents a pair fits 64 bits
    packed = np.unique(edges[:, 0] * base + edges[:, 1])
    return np.stack([packed // base, packed % base], axis=1)


def find_positions(ascending: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[np.bool_], Numbers]:
    """Which of the values are in an ascending array, and where (for those that are not, where they would stand)."""
    places = np.searchsorted(ascending, values)
    inside = places < len(ascending)
    inside[inside] = ascending[places[inside]] == values[inside]
    return inside, places


def connected_components(edges: Edges) -> Edges:
    """Connected components of `edges` as (document, smallest of its component), int64 [F, 2], sorted.

    The smallest documents themselves have no row. A forest is a list of edges with the components of the edges it was
    made from, so forests of parts of the edges can be laid together and made one forest in turn.
    """
    if not len(edges):
        return np.zeros((0, 2), dtype=np.int64)
    nodes, places = np.unique(edges, return_inverse=True)
    places = places.reshape(edges.shape)
    graph = coo_array((np.ones(len(edges), dtype=np.int8), (places[:, 0], places[:, 1])), shape=(len(nodes),) * 2)
    count, labels = csgraph.connected_components(graph, directed=False)
    least = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(least, labels, nodes)
    rows = np.stack([nodes, least[labels]], axis=1)
    return rows[rows[:, 0] != rows[:, 1]]


def group_by_keys(keys: Sequence[NDArray[np.uint64]], numbers: Numbers) -> Edges:
    """Documents with equal keys as a forest: (document, smallest with the same keys), int64 [F, 2].

    Args:
        keys: Columns of uint64 [N]; documents are equal when all columns are.
        numbers: int64 [N], numbers of the documents, all different.
    """
    order = np.lexsort((numbers, *keys))
    numbers = numbers[order]
    fresh = np.ones(len(numbers), dtype=bool)
    if len(numbers):
        fresh[1:] = np.any([column[order][1:] != column[order][:-1] for column in keys], axis=0)
    first = np.flatnonzero(fresh)[np.cumsum(fresh) - 1]
    rows = np.stack([numbers, numbers[first]], axis=1)
    return rows[~fresh]
