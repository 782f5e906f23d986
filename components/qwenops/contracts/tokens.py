"""Token shards: what pre-training reads. One flat file of ids per split and domain, an index, and a packing reader.

    index.json                       vocabulary, dtype, end_of_text, weights, shards, heldout_languages
    shards/<split>-<domain>.bin      ids end to end, little endian; every document ends with <|endoftext|>
    shards/<split>-<domain>.idx.npy  int64 [documents + 1], where each document starts; the last entry is the end
    shards/<split>-<domain>.lang.json  language of each document

`packed` cuts each domain's endless stream of reshuffled documents into rows and draws the domain of a row by a
low-discrepancy sequence, so realised shares follow the weights to within a row or two, and row r is found
without producing the rows before it. Drawing the domain of every document instead would need a replay on resume.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qwenops.contracts.manifest import file_digest
from qwenops.errors import ContractError

INDEX = "index.json"
END_OF_TEXT, IM_START, IM_END = CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_WIDEST_UINT16 = 1 << 16
_GOLDEN = (5**0.5 - 1) / 2
_BLOCK_ROWS = 1 << 20

Ids = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class ShardFacts:
    """What one shard holds: its tokens, documents, UTF-8 bytes of the text they came from, and the file's digest."""

    tokens: int
    documents: int
    bytes_of_text: int
    sha256: str


@dataclass(frozen=True)
class TokenIndex:
    """The account of a tokens artifact.

    Attributes:
        vocabulary: Size of the tokenizer, control tokens included.
        dtype: "uint16" when every id fits, else "uint32".
        end_of_text: Id of <|endoftext|>.
        weights: Domain to its share of training tokens; sums to 1.
        shards: "<split>-<domain>" to its facts.
        heldout_languages: Language to {"tokens", "bytes"} of held-out text.
    """

    vocabulary: int
    dtype: str
    end_of_text: int
    weights: Mapping[str, float]
    shards: Mapping[str, ShardFacts]
    heldout_languages: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, dict[str, int]])


class PackedRow(NamedTuple):
    """One row of packed text, all of one domain.

    Attributes:
        ids: [length], in the shard's dtype.
        documents: int64 [length], the place of each token's document in its shard.
        domain: Name of the domain.
    """

    ids: Ids
    documents: NDArray[np.int64]
    domain: str

    @property
    def names(self) -> list[str]:
        """Its documents as "<domain>/<place>", by which `TokenShards.documents` finds them."""
        return [f"{self.domain}/{place}" for place in np.unique(self.documents)]


def encode_texts(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of untrusted texts: the surface form of a control token in a text stays text and yields no control id."""
    return tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"] if texts else []


def dtype_of(vocabulary: int) -> str:
    """Smallest of the two shard types that holds every id below `vocabulary`."""
    return "uint16" if vocabulary <= _WIDEST_UINT16 else "uint32"


def write_shard(
    artifact: Path,
    name: str,
    documents: Sequence[Sequence[int] | Ids],
    languages: Sequence[str],
    bytes_of_text: int,
    dtype: str,
) -> ShardFacts:
    """Write one shard; `documents` end with the end-of-text id already, `name` is "<split>-<domain>"."""
    writer = ShardWriter(artifact, name, [len(document) for document in documents], languages, dtype)
    for number, document in enumerate(documents):
        writer.put(number, document)
    return writer.close(bytes_of_text)


class ShardWriter:
    """Writes the documents of one shard in any order, one in memory at a time: each has its place from the start.

    Args:
        artifact: Folder of the artifact.
        name: "<split>-<domain>".
        lengths: Tokens of each document in stored order, its end-of-text id included.
        languages: Language of each document.
        dtype: Type of the ids.
    """

    def __init__(self, artifact: Path, name: str, lengths: Sequence[int], languages: Sequence[str], dtype: str) -> None:
        folder = artifact / "shards"
        folder.mkdir(parents=True, exist_ok=True)
        self._starts = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=self._starts[1:])
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._path = folder / f"{name}.bin"
        self._stream = self._path.open("wb", buffering=0)
        np.save(folder / f"{name}.idx.npy", self._starts)
        (folder / f"{name}.lang.json").write_text(json.dumps(list(languages)), encoding="utf-8")

    def put(self, number: int, document: Sequence[int] | Ids) -> None:
        """Write the document of this number; it ends with the end-of-text id already."""
        block = memoryview(np.asarray(document, dtype=self._dtype).tobytes())
        place = int(self._starts[number]) * self._dtype.itemsize
        while block:  # a disk that is almost full takes a part first
            written = os.pwrite(self._stream.fileno(), block, place)
            block, place = block[written:], place + written

    def close(self, bytes_of_text: int) -> ShardFacts:
        """The account of the finished shard, with the digest of what lies on disk."""
        self._stream.close()
        return ShardFacts(int(self._starts[-1]), len(self._starts) - 1, bytes_of_text, file_digest(self._path))


def write_index(artifact: Path, index: TokenIndex) -> None:
    """Write `index.json`; after the shards, because a reader takes its presence for completeness."""
    text = json.dumps(asdict(index), indent=1, sort_keys=True)
    (artifact / INDEX).write_text(text, encoding="utf-8")


def read_index(artifact: Path) -> TokenIndex:
    """Read `index.json`.

    Raises:
        ContractError: it is missing or unreadable, or its weights are not a distribution over train shards.
    """
    path = artifact / INDEX
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        shards = {name: ShardFacts(**facts) for name, facts in plain.pop("shards").items()}
        index = TokenIndex(shards=shards, **plain)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ContractError(
            f"no readable token index at {path}",
            expected="an artifact of the tokens stage",
            found=error,
            action="run the tokens stage again",
        ) from None
    lacking = [domain for domain, share in index.weights.items() if share > 0 and f"train-{domain}" not in shards]
    total = sum(index.weights.values())
    if lacking or abs(total - 1) > 1e-6 or min(index.weights.values()) < 0:
        raise ContractError(
            f"mixture weights of {path} cannot be honoured",
            expected="shares that sum to 1, over domains with tokens",
            found=f"sum {total}, no train shard for {lacking}",
            action="run mixture and tokens again",
        )
    return index


class TokenShards:
    """Reader of a tokens artifact; shards are memory-mapped.

    Args:
        path: Folder of the artifact.

    Raises:
        ContractError: the index is bad, or a shard's length is not the one the index states.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.index = read_index(self.path)
        self._shards = {name: self._open(name, facts) for name, facts in self.index.shards.items()}
        self._chosen: dict[tuple[str, int], _Chosen] = {}

    @property
    def weights(self) -> dict[str, float]:
        """Domain to its share of training tokens."""
        return dict(self.index.weights)

    @property
    def vocabulary(self) -> int:
        """Size of the tokenizer the ids belong to."""
        return self.index.vocabulary

    @property
    def end_of_text(self) -> int:
        """Id that ends every document."""
        return self.index.end_of_text

    def tokens(self, split: str) -> int:
        """Tokens of a split, each counted once."""
        return sum(facts.tokens for name, facts in self.index.shards.items() if name.split("-", 1)[0] == split)

    def documents(self, split: str, domain: str | None = None, lang: str | None = None) -> Iterator[Ids]:
        """Documents of a split in stored order, each with its end-of-text id; None takes every domain or language."""
        for name in self._names(split):
            if domain in (None, name.split("-", 1)[1]):
                shard = self._shards[name]
                yield from (shard.document(i) for i in range(shard.count) if lang in (None, shard.languages[i]))

    def heldout_by_language(self) -> dict[str, tuple[list[Ids], int]]:
        """Held-out documents by language, with the UTF-8 bytes of their text (for bits per byte)."""
        return {
            language: (list(self.documents("heldout", lang=language)), facts["bytes"])
            for language, facts in sorted(self.index.heldout_languages.items())
        }

    def lengths(self, split: str) -> dict[str, NDArray[np.int64]]:
        """Tokens of each document of a split by domain, its end-of-text id counted."""
        return {name.split("-", 1)[1]: np.diff(self._shards[name].starts) for name in self._names(split)}

    def packed(
        self,
        split: str,
        length: int,
        seed: int,
        start_row: int = 0,
        weights: Mapping[str, float] | None = None,
        least_tokens: int = 0,
    ) -> Iterator[PackedRow]:
        """Endless rows of exactly `length` tokens; a function of (split, length, seed, weights, row) only.

        A row belongs to one domain. Within a domain documents lie end to end, reshuffled every epoch; a document cut
        by the end of a row continues in that domain's next row, so no token is lost or padded.

        Args:
            split: "train" or "heldout"; a domain the split lacks gives its share to the others.
            length: Tokens in a row.
            seed: Seeds the order of documents and the phase of the domain sequence.
            start_row: First row to produce; rows before it cost no reading.
            weights: Shares to try instead of the index's own.
            least_tokens: Shorter documents are left out; a domain without longer ones gives its share to the others.

        Raises:
            ContractError: no document of the split can be taken.
        """
        shares = self.index.weights if weights is None else weights
        least = max(least_tokens, 1)
        weighed = [name.split("-", 1)[1] for name in self._names(split) if shares.get(name.split("-", 1)[1], 0) > 0]
        found = [domain for domain in weighed if self._choose(f"{split}-{domain}", least).total]
        if not found:
            longest = {domain: int(lengths.max(initial=0)) for domain, lengths in self.lengths(split).items()}
            raise ContractError(
                f"no {split} documents to pack",
                expected=f"documents of at least {least} tokens in a domain of {dict(shares)}",
                found=f"longest documents of {longest}",
                action="add longer documents, or ask for shorter ones" if longest else "run the tokens stage again",
            )
        schedule = _Schedule([shares[domain] for domain in found], seed)
        streams = [
            _Stream(self._choose(f"{split}-{domain}", least), seed, number) for number, domain in enumerate(found)
        ]
        taken = schedule.counts_before(start_row)
        row = start_row
        while True:
            which = schedule.domain(row)
            ids, documents = streams[which].take(int(taken[which]) * length, length)
            yield PackedRow(ids, documents, found[which])
            taken[which] += 1
            row += 1

    def verify(self) -> None:
        """Compare every shard with its digest.

        Raises:
            ContractError: a shard differs.
        """
        for name, facts in self.index.shards.items():
            found = hashlib.sha256(self._shards[name].ids.tobytes()).hexdigest()
            if found != facts.sha256:
                raise ContractError(
                    f"shard {name} changed", expected=facts.sha256, found=found, action="run the tokens stage again"
                )

    def _choose(self, name: str, least_tokens: int) -> "_Chosen":
        """Found once, since a step of many rows may read as many streams of one shard."""
        key = name, least_tokens
        if key not in self._chosen:
            shard = self._shards[name]
            lengths = np.diff(shard.starts)
            places = np.flatnonzero(lengths >= least_tokens)
            self._chosen[key] = _Chosen(shard, places, lengths[places], int(lengths[places].sum()))
        return self._chosen[key]

    def _names(self, split: str) -> list[str]:
        return [name for name in sorted(self._shards) if name.split("-", 1)[0] == split]

    def _open(self, name: str, facts: ShardFacts) -> "_Shard":
        stem = self.path / "shards" / name
        dtype = np.dtype(self.index.dtype).newbyteorder("<")
        try:
            ids = np.memmap(f"{stem}.bin", dtype=dtype, mode="r")
            starts = np.load(f"{stem}.idx.npy")
            languages = json.loads(Path(f"{stem}.lang.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ContractError(
                f"unreadable shard {stem}",
                expected="bin, idx.npy and lang.json",
                found=error,
                action="run the tokens stage again",
            ) from None
        if not len(ids) == starts[-1] == facts.tokens or not len(starts) - 1 == len(languages) == facts.documents:
            raise ContractError(
                f"shard {stem} is not what its index says",
                expected=f"{facts.tokens} tokens, {facts.documents} documents",
                found=f"{len(ids)} tokens, {len(languages)} documents",
                action="run the tokens stage again",
            )
        return _Shard(ids, starts, languages)


@dataclass(frozen=True)
class _Shard:
    ids: Ids
    starts: NDArray[np.int64]
    languages: list[str]

    @property
    def count(self) -> int:
        return len(self.languages)

    def document(self, number: int) -> Ids:
        return self.ids[self.starts[number] : self.starts[number + 1]]


@dataclass(frozen=True)
class _Chosen:
    """The documents of a shard that have some length: their places and tokens, int64 [n], and the tokens of all."""

    shard: _Shard
    places: NDArray[np.int64]
    lengths: NDArray[np.int64]
    total: int


class _Schedule:
    """Domain of each row: the golden-ratio sequence through the cumulated weights."""

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        self._edges = np.cumsum(np.asarray(weights) / np.sum(weights))[:-1]
        self._phase = float(np.random.default_rng(seed).random())

    def domain(self, row: int) -> int:
        return int(self._domains(np.array([row]))[0])

    def counts_before(self, row: int) -> NDArray[np.int64]:
        counts = np.zeros(len(self._edges) + 1, dtype=np.int64)
        for start in range(0, row, _BLOCK_ROWS):
            rows = np.arange(start, min(start + _BLOCK_ROWS, row))
            counts += np.bincount(self._domains(rows), minlength=len(counts))
        return counts

    def _domains(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._edges, (self._phase + rows * _GOLDEN) % 1.0, side="right")


class _Stream:
    """One domain's chosen documents end to end for ever, in a new order every epoch."""

    def __init__(self, chosen: _Chosen, seed: int, number: int) -> None:
        self._chosen, self._seed, self._number = chosen, seed, number
        self._epoch: int = -1
        self._order = self._ends = np.zeros(0, dtype=np.int64)

    def take(self, position: int, length: int) -> tuple[Ids, NDArray[np.int64]]:
        """`length` ids from `position` of the stream, and the place of each one's document in the shard."""
        pieces: list[Ids] = []
        places: list[NDArray[np.int64]] = []
        while length > 0:
            epoch, offset = divmod(position, self._chosen.total)
            self._shuffle(epoch)
            turn = int(np.searchsorted(self._ends, offset, side="right"))
            place = int(self._chosen.places[self._order[turn]])
            document = self._chosen.shard.document(place)
            begin = offset - (int(self._ends[turn]) - len(document))
            piece = document[begin : begin + length]
            pieces.append(piece)
            places.append(np.full(len(piece), place, dtype=np.int64))
            position += len(piece)
            length -= len(piece)
        return np.concatenate(pieces), np.concatenate(places)

    def _shuffle(self, epoch: int) -> None:
        if epoch != self._epoch:
            rng = np.random.default_rng([self._seed, self._number, epoch])
            self._order = rng.permutation(len(self._chosen.places))
            self._ends = np.cumsum(self._chosen.lengths[self._order])
            self._epoch = epoch
