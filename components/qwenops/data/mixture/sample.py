"""The proxies' own small token shards: a sample of every bucket, some of its documents kept for measuring.

Only documents of the training split are used, so held-out text stays unseen by the choice of the mixture too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qwenops.contracts.document import part_paths, texts_of
from qwenops.contracts.tokens import (
    END_OF_TEXT,
    ShardFacts,
    TokenIndex,
    dtype_of,
    encode_texts,
    write_index,
    write_shard,
)
from qwenops.data.buckets import INSTRUCTIONS, Sources

_COLUMNS = ["id", "text", "source", "domain", "lang", "split"]
_NO_SOURCES = Sources()


@dataclass(frozen=True)
class Buckets:
    """The buckets of the training documents.

    Attributes:
        tokens: Bucket to its estimated tokens, a document that is taken twice in an epoch counted twice.
        copies: Bucket to the most copies of one document in an epoch.
    """

    tokens: Mapping[str, int]
    copies: Mapping[str, int]

    @property
    def names(self) -> list[str]:
        """Buckets in the order of every array."""
        return sorted(self.tokens)

    @property
    def searched(self) -> "Buckets":
        """The buckets whose shares are searched for: all but the instructions, whose share the recipe sets."""
        names = [name for name in self.names if name != INSTRUCTIONS]
        return Buckets({n: self.tokens[n] for n in names}, {n: self.copies[n] for n in names})

    @property
    def prior(self) -> dict[str, float]:
        """Share of each bucket's tokens."""
        total = sum(self.tokens.values())
        return {name: self.tokens[name] / total for name in self.names}


def write_sample(
    documents: Path,
    tokenizer: Any,
    out: Path,
    *,
    sample_bytes: int,
    measured_share: float,
    seed: int,
    sources: Sources = _NO_SOURCES,
) -> Buckets:
    """Write shards of at most `sample_bytes` of each bucket; split "heldout" holds what losses are measured on."""
    table = _heads(documents, sources)
    buckets = table["bucket"].to_pylist()
    shards: dict[str, ShardFacts] = {}
    tokens: dict[str, int] = {}
    copies: dict[str, int] = {}
    for bucket in sorted(set(buckets)):
        rows = table.filter(pc.equal(table["bucket"], bucket))
        size = int(pc.sum(pc.multiply(rows["bytes"], rows["copies"])).as_py())
        copies[bucket] = int(pc.max(rows["copies"]).as_py())
        texts = texts_of(documents, _choose(rows, bucket, sample_bytes, seed))
        written = _write_bucket(texts, bucket, tokenizer, out, measured_share)
        shards |= written
        sampled = sum(facts.bytes_of_text for facts in written.values())
        tokens[bucket] = round(size * sum(facts.tokens for facts in written.values()) / sampled)
    end, vocabulary = tokenizer.convert_tokens_to_ids(END_OF_TEXT), len(tokenizer)
    found = Buckets(tokens, copies)
    write_index(out, TokenIndex(vocabulary, dtype_of(vocabulary), end, found.searched.prior, shards))
    return found


def _heads(documents: Path, sources: Sources) -> pa.Table:
    """Id, bucket, bytes and copies of the training documents, by id; texts pass through memory a few at a time."""
    pieces: list[pa.Table] = []
    for path in part_paths(documents):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1000, columns=_COLUMNS):
            train = batch.filter(pc.equal(batch["split"], "train"))
            names, origins = train["id"].to_pylist(), train["source"].to_pylist()
            buckets = sources.buckets(origins, train["domain"].to_pylist(), train["lang"].to_pylist())
            copies = sources.copies(names, origins, ["train"] * len(names))
            sizes = pc.binary_length(train["text"]).cast(pa.int64())
            columns = [train["id"], pa.array(buckets, pa.string()), sizes, pa.array(copies)]
            pieces.append(pa.table(columns, names=["id", "bucket", "bytes", "copies"]))
    table = pa.concat_tables(pieces)
    return table.filter(pc.greater(table["copies"], 0)).sort_by("id")


def _choose(rows: pa.Table, bucket: str, sample_bytes: int, seed: int) -> list[str]:
    """Ids of documents in a random order, as many as fit `sample_bytes`, two at least where there are two."""
    order = np.random.default_rng([seed, *bucket.encode()]).permutation(rows.num_rows)
    sizes = rows["bytes"].to_numpy()[order]
    taken = max(int(np.searchsorted(np.cumsum(sizes), sample_bytes, side="right")), min(2, rows.num_rows))
    return rows["id"].take(pa.array(order[:taken])).to_pylist()


def _write_bucket(
    texts: list[str], bucket: str, tokenizer: Any, out: Path, measured_share: float
) -> dict[str, ShardFacts]:
    end = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    encoded = [[*ids, end] for ids in encode_texts(tokenizer, texts)]
    held = max(1, round(len(texts) * measured_share))
    # A bucket of one document is measured on what it is trained on: there is nothing else.
    splits = {"heldout": slice(0, held), "train": slice(held if len(texts) > 1 else 0, len(texts))}
    return {
        f"{split}-{bucket}": write_shard(
            out,
            f"{split}-{bucket}",
            encoded[part],
            [""] * len(encoded[part]),
            sum(len(text.encode()) for text in texts[part]),
            dtype_of(len(tokenizer)),
        )
        for split, part in splits.items()
    }
