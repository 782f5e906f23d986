"""Cut paragraphs that other documents repeat, as pieces of parallel work.

    paragraphs of parts -> who has each, one piece per range of keys -> documents that become too short are dropped
    -> who of the others has each, one piece per range -> parts without repeated paragraphs

A paragraph stays in the best document that has it. Documents that become too short are dropped, and then the others are
asked again, so that what a kept document says is said by exactly one kept document: without rivals a document only gets
paragraphs back, and none becomes too short by that. Pieces leave arrays in `scratch` and hold one part or one range of
keys; a part counts each paragraph once, so that a banner on every page does not overfill its range.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qwenops.contracts.document import DOCUMENT_SCHEMA, read_part, write_part
from qwenops.data.dedup.clusters import find_positions
from qwenops.data.dedup.config import ParagraphsConfig
from qwenops.data.dedup.paragraphs import Paragraphs, find_paragraphs, paragraph_at, remove_paragraphs
from qwenops.data.dedup.ranges import ROWS_OF_RANGE, KeyRanges, ranges_for
from qwenops.data.dedup.search import DuplicateSearch, Pieces
from qwenops.data.removal import REMOVED_SCHEMA
from qwenops.data.spans import Mask

REASON = "repeated_paragraphs"
_SHOWN = 10
_SHOWN_CHARACTERS = 100

# uint64 [3, K]: keys, ascending; the best document that has each; how many have it.
Owners = NDArray[np.uint64]
Losses = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Cut:
    """What was cut from documents that are kept.

    Attributes:
        by_domain: Domain to {"documents", "paragraphs", "characters", "bytes"}: how many were shortened, and what they
            lost, line breaks included; bytes are UTF-8.
        by_source: The same by source.
        examples: {"text", "documents", "survivor"} of the paragraphs that most documents had; texts are shortened.
    """

    by_domain: Losses
    by_source: Losses
    examples: list[dict[str, Any]]


class RepeatedParagraphs:
    """The files of one search for repeated paragraphs.

    Args:
        config: Which paragraphs count.
        search: The finished search for duplicates: its parts and the numbers of their documents.
        removed: Folder with a file of `REMOVED_SCHEMA` for each part that loses documents to it.
        scratch: Folder for what pieces leave; `scratch/documents` and `scratch/removed` are the result.
        rows_of_range: Paragraphs that a piece may hold.
    """

    def __init__(
        self,
        config: ParagraphsConfig,
        search: DuplicateSearch,
        removed: Path,
        scratch: Path,
        rows_of_range: int = ROWS_OF_RANGE,
    ) -> None:
        self.config, self.search, self.removed, self.scratch = config, search, removed, scratch
        self.rows_of_range = rows_of_range

    def cut(self, run_pieces: Pieces) -> Cut:
        """All pieces in turn: parts without repeated paragraphs, and for each what it loses in all."""
        (self.scratch / "removed").mkdir(parents=True, exist_ok=True)
        names = list(self.search.parts)
        found = run_pieces(names, partial(_gather_part, repeats=self), self.scratch / "first")
        ranges = ranges_for(sum(summary["keys"] for summary in found), self.rows_of_range)
        self._join(ranges, "first", run_pieces)
        run_pieces(names, partial(_drop_part, repeats=self, ranges=ranges), self.scratch / "second")
        joined = self._join(ranges, "second", run_pieces)
        most = sorted((-documents, key) for summary in joined for key, documents in summary["most"])[:_SHOWN]
        shown = {key: -documents for documents, key in most}
        work = partial(_cut_part, repeats=self, ranges=ranges, shown=shown)
        parts = run_pieces(names, work, self.scratch / "cut")
        examples = [row for part in parts for row in part["examples"]]
        return Cut(
            _total(part["by_domain"] for part in parts),
            _total(part["by_source"] for part in parts),
            sorted(examples, key=lambda row: (-row["documents"], row["survivor"], row["text"])),
        )

    def read(self, name: str, turn: str) -> Paragraphs:
        """The long enough paragraphs of a part's documents that take part in a turn; their documents are rows."""
        with np.load(self.scratch / turn / f"{name}.npz") as arrays:
            return Paragraphs(**arrays)

    def rivalled(self, name: str, found: Paragraphs, ranges: KeyRanges, turn: str) -> Mask:
        """Which of a part's paragraphs a better document has too."""
        order = np.argsort(found.keys)
        keys, numbers = found.keys[order], self.search.numbers_of(name)[found.document[order]]
        sorted_mask = np.zeros(len(keys), dtype=bool)
        for piece in ranges.names:
            known, owner, _ = np.load(self.scratch / f"{turn}-joined" / f"{piece}.npy", mmap_mode="r")
            here = ranges.slice_of(piece, keys)
            inside, places = find_positions(known, keys[here])
            rows = here.start + np.flatnonzero(inside)
            sorted_mask[rows] = owner[places[inside]] < numbers[rows]
        mask = np.empty(len(keys), dtype=bool)
        mask[order] = sorted_mask
        return mask

    def leave(self, name: str, found: Paragraphs, turn: str) -> int:
        """Leave a part's paragraphs for a turn, and one row for each key; returns how many keys."""
        np.savez(self.scratch / turn / f"{name}.npz", **vars(found))
        numbers = self.search.numbers_of(name)[found.document].astype(np.uint64)
        pairs = pd.DataFrame({"key": found.keys, "owner": numbers}).drop_duplicates()
        owners = _owners(pairs.assign(documents=np.uint64(1)))
        np.save(self.scratch / turn / f"{name}.npy", owners)
        return owners.shape[1]

    def _join(self, ranges: KeyRanges, turn: str, run_pieces: Pieces) -> list[dict[str, Any]]:
        work = partial(_join_range, repeats=self, ranges=ranges, turn=turn)
        return run_pieces(ranges.names, work, self.scratch / f"{turn}-joined")


def _gather_part(name: str, repeats: RepeatedParagraphs) -> dict[str, Any]:
    """The paragraphs of the documents that are left, and how many words each document has."""
    table = read_part(repeats.search.parts[name], ["id", "text", "domain"])
    takes_part = pc.is_in(table["domain"], value_set=pa.array(repeats.config.domains, pa.string()))
    takes_part = pc.and_not(takes_part, pc.is_in(table["id"], value_set=_listed(repeats.removed, name)["id"]))
    rows = np.flatnonzero(takes_part.to_numpy())
    found = find_paragraphs(table["text"].take(pa.array(rows)).to_pylist(), repeats.config)
    words = np.zeros(table.num_rows, dtype=np.int64)
    words[rows] = np.bincount(found.document, weights=found.words, minlength=len(rows))
    np.save(repeats.scratch / "first" / f"{name}-words.npy", words)
    found = replace(found, document=rows[found.document]).where(found.words >= repeats.config.min_words)
    return {"keys": repeats.leave(name, found, "first")}


def _join_range(piece: str, repeats: RepeatedParagraphs, ranges: KeyRanges, turn: str) -> dict[str, Any]:
    """What several documents have, of one range of keys."""
    slices: list[Owners] = []
    for name in repeats.search.parts:
        owners = np.load(repeats.scratch / turn / f"{name}.npy", mmap_mode="r")
        slices.append(owners[:, ranges.slice_of(piece, owners[0])])
    keys, owner, documents = np.concatenate(slices, axis=1)
    joined = _owners(pd.DataFrame({"key": keys, "owner": owner, "documents": documents}))
    joined = joined[:, joined[2] > 1]
    np.save(repeats.scratch / f"{turn}-joined" / f"{piece}.npy", joined)
    most = np.lexsort((joined[0], joined[2].max(initial=0) - joined[2]))[:_SHOWN]
    return {"most": joined[:, most][[0, 2]].T.tolist()}


def _drop_part(name: str, repeats: RepeatedParagraphs, ranges: KeyRanges) -> dict[str, Any]:
    """Which documents of a part become too short; only the others take part from here on."""
    found = repeats.read(name, "first")
    words = np.load(repeats.scratch / "first" / f"{name}-words.npy")
    gone = found.where(repeats.rivalled(name, found, ranges, "first"))
    lost = np.bincount(gone.document, weights=gone.words, minlength=len(words)).astype(np.int64)
    short = (lost > 0) & (words - lost < repeats.config.min_document_words)
    ids = read_part(repeats.search.parts[name], ["id"])["id"].filter(pa.array(short))
    dropped = pa.table([ids, [REASON] * len(ids)], schema=REMOVED_SCHEMA)
    pq.write_table(
        pa.concat_tables([_listed(repeats.removed, name), dropped]), repeats.scratch / "removed" / f"{name}.parquet"
    )
    repeats.leave(name, found.where(~short[found.document]), "second")
    return {"dropped": len(ids)}


def _cut_part(name: str, repeats: RepeatedParagraphs, ranges: KeyRanges, shown: dict[int, int]) -> dict[str, Any]:
    """Write a part without its repeated paragraphs; `shown` maps keys of examples to how many documents have them."""
    table = read_part(repeats.search.parts[name])
    found = repeats.read(name, "second")
    rivalled = repeats.rivalled(name, found, ranges, "second")
    gone, kept = found.where(rivalled), found.where(~rivalled)
    texts = table["text"].to_pylist()
    examples: dict[int, dict[str, Any]] = {}
    for key, row, place in zip(kept.keys.tolist(), kept.document.tolist(), kept.place.tolist(), strict=True):
        if key in shown and key not in examples:
            text = paragraph_at(texts[row], place, repeats.config)[:_SHOWN_CHARACTERS]
            examples[key] = {"text": text, "documents": shown[key], "survivor": table["id"][row].as_py()}
    by_domain, by_source = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    places_of: dict[int, list[int]] = {}
    for row, place in zip(gone.document.tolist(), gone.place.tolist(), strict=True):
        places_of.setdefault(row, []).append(place)
    for row, places in sorted(places_of.items()):
        text = remove_paragraphs(texts[row], places, repeats.config)
        lost = {"documents": 1, "paragraphs": len(places), **_difference(texts[row], text)}
        for groups, column in ((by_domain, "domain"), (by_source, "source")):
            group = table[column][row].as_py()
            groups.update({(group, unit): amount for unit, amount in lost.items()})
        texts[row] = text
    place = DOCUMENT_SCHEMA.get_field_index("text")
    cut = table.set_column(place, DOCUMENT_SCHEMA.field("text"), pa.array(texts, pa.string()))
    write_part(cut, repeats.scratch / "documents" / f"{name}.parquet")
    return {"by_domain": _nested(by_domain), "by_source": _nested(by_source), "examples": list(examples.values())}


def _owners(rows: pd.DataFrame) -> Owners:
    """Rows of key, owner and documents as one for each key."""
    grouped = rows.groupby("key").agg({"owner": "min", "documents": "sum"}).reset_index()
    return np.ascontiguousarray(grouped.to_numpy(np.uint64).T)


def _listed(folder: Path, name: str) -> pa.Table:
    path = folder / f"{name}.parquet"
    return pq.read_table(path) if path.exists() else REMOVED_SCHEMA.empty_table()


def _difference(text: str, shorter: str) -> dict[str, int]:
    return {"characters": len(text) - len(shorter), "bytes": len(text.encode()) - len(shorter.encode())}


def _nested(counts: Counter[tuple[str, str]]) -> Losses:
    groups: Losses = {}
    for (group, unit), amount in sorted(counts.items()):
        groups.setdefault(group, {})[unit] = amount
    return groups


def _total(parts: Iterable[Losses]) -> Losses:
    total = Counter[tuple[str, str]]()
    for part in parts:
        total.update({(group, unit): amount for group, lost in part.items() for unit, amount in lost.items()})
    return _nested(total)
