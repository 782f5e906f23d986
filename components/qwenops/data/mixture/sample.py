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

from qwenops.contracts.document import read_documents
from qwenops.contracts.tokens import (
    END_OF_TEXT,
    ShardFacts,
    TokenIndex,
    dtype_of,
    encode_texts,
    write_index,
    write_shard,
)
from qwenops.data.buckets import bucket_of


@dataclass(frozen=True)
class Buckets:
    """The buckets of the training documents and the estimated tokens of each."""

    tokens: Mapping[str, int]

    @property
    def names(self) -> list[str]:
        """Buckets in the order of every array."""
        return sorted(self.tokens)

    @property
    def prior(self) -> dict[str, float]:
        """Share of each bucket's tokens."""
        total = sum(self.tokens.values())
        return {name: self.tokens[name] / total for name in self.names}


def write_sample(
    documents: Path, tokenizer: Any, out: Path, *, sample_bytes: int, measured_share: float, seed: int
) -> Buckets:
    """Write shards of at most `sample_bytes` of each bucket; split "heldout" holds what losses are measured on."""
    table = read_documents(documents, ["id", "text", "domain", "lang", "split"])
    table = table.filter(pc.equal(table["split"], "train")).sort_by("id")
    buckets = list(map(bucket_of, table["domain"].to_pylist(), table["lang"].to_pylist()))
    table = table.append_column("bucket", pa.array(buckets, pa.string()))
    shards: dict[str, ShardFacts] = {}
    tokens: dict[str, int] = {}
    for bucket in sorted(set(buckets)):
        rows = table.filter(pc.equal(table["bucket"], bucket))
        size = int(pc.sum(pc.binary_length(rows["text"])).as_py())
        written = _write_bucket(rows, bucket, tokenizer, out, sample_bytes, measured_share, seed)
        shards |= written
        sampled = sum(facts.bytes_of_text for facts in written.values())
        tokens[bucket] = round(size * sum(facts.tokens for facts in written.values()) / sampled)
    end, vocabulary = tokenizer.convert_tokens_to_ids(END_OF_TEXT), len(tokenizer)
    found = Buckets(tokens)
    write_index(out, TokenIndex(vocabulary, dtype_of(vocabulary), end, found.prior, shards))
    return found


def _write_bucket(
    rows: pa.Table, bucket: str, tokenizer: Any, out: Path, sample_bytes: int, measured_share: float, seed: int
) -> dict[str, ShardFacts]:
    order = np.random.default_rng([seed, *bucket.encode()]).permutation(rows.num_rows)
    sizes = pc.binary_length(rows["text"]).to_numpy()[order]
    taken = max(int(np.searchsorted(np.cumsum(sizes), sample_bytes, side="right")), min(2, rows.num_rows))
    texts = rows["text"].take(pa.array(order[:taken])).to_pylist()
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
