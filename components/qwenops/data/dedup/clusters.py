"""From shared buckets to one survivor per cluster: candidate pairs, union-find, deterministic choice."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# In a bucket up to this size every pair is a candidate; a larger one is boilerplate, and a chain through it is enough.
_ALL_PAIRS = 50

Pair = tuple[int, int]


def candidate_pairs(bands: Iterable[NDArray[np.uint64]]) -> set[Pair]:
    """Pairs of documents (by number, smaller first) that share a bucket in at least one band.

    Args:
        bands: For each band the key of every document, uint64 [N]; read one band at a time.
    """
    pairs: set[Pair] = set()
    for keys in bands:
        order = np.argsort(keys, kind="stable")
        edges = np.flatnonzero(np.diff(keys[order]) != 0) + 1
        for bucket in np.split(order, edges):
            if len(bucket) > 1:
                pairs.update(_pairs_of(bucket.tolist()))
    return pairs


def survivors(count: int, pairs: Iterable[Pair], rank: Sequence[int]) -> NDArray[np.int64]:
    """The surviving document of each document's cluster: int64 [count].

    Args:
        count: Documents.
        pairs: Duplicates, closed transitively here.
        rank: Order of preference, smallest first, all different; the smallest of a cluster survives.
    """
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for left, right in pairs:
        first, second = root(left), root(right)
        if first != second:  # the better document becomes the root, so the root is the survivor
            better, worse = (first, second) if rank[first] < rank[second] else (second, first)
            parent[worse] = better
    return np.array([root(node) for node in range(count)], dtype=np.int64)


def ranks(qualities: Sequence[float], ids: Sequence[str]) -> list[int]:
    """Place of each document when sorted by quality, best first, then by id."""
    order = sorted(range(len(ids)), key=lambda number: (-qualities[number], ids[number]))
    place = [0] * len(ids)
    for position, number in enumerate(order):
        place[number] = position
    return place


def _pairs_of(bucket: list[int]) -> Iterable[Pair]:
    if len(bucket) <= _ALL_PAIRS:
        return ((a, b) for i, a in enumerate(bucket) for b in bucket[i + 1 :])
    return [*pairwise(bucket), *((bucket[0], other) for other in bucket[1:])]
