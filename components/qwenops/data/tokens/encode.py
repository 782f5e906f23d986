"""Encode a part of the documents: ids ending with the end-of-text token, and what is needed to sort them.

Untrusted text is encoded so that a control token's surface form stays text; the one control id of a document is
the end of text that is appended here. The `tokenizers` library reads the folder: a worker process then need not
import transformers, which takes longer than encoding a part.
"""

from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from qwenops.contracts.tokens import END_OF_TEXT
from qwenops.data.buckets import Sources
from qwenops.errors import ContractError
from qwenops.platform.ray.documents import PartResult

ENCODED_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("shard", pa.string()),
        pa.field("lang", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("tokens", pa.int64()),
        pa.field("copies", pa.int64()),
        pa.field("ids", pa.list_(pa.uint32())),
    ]
)

_NO_SOURCES = Sources()


@lru_cache(maxsize=1)
def load_encoder(folder: Path) -> Tokenizer:
    """The tokenizer of a folder, set to read control tokens in a text as text; one for all parts of a worker.

    What a discarded tokenizer remembers of words is not given back: a new one for each part of 8 MB cost a worker 3 MB
    each time.

    Raises:
        ContractError: it has no end-of-text token.
    """
    encoder = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if encoder.token_to_id(END_OF_TEXT) is None:
        raise ContractError(
            f"the tokenizer at {folder} cannot end a document",
            expected=END_OF_TEXT,
            found="no such token",
            action="use a tokenizer with Qwen's control tokens",
        )
    encoder.encode_special_tokens = True
    return encoder


def encode_part(table: pa.Table, tokenizer: Path, batch_documents: int, sources: Sources) -> PartResult:
    """Encode one part with the tokenizer in a folder, see `encode_documents`; counts what was read and kept."""
    encoded = encode_documents(table, load_encoder(tokenizer), batch_documents, sources)
    return PartResult({"encoded": encoded}, {"read": table.num_rows, "kept": encoded.num_rows})


def encode_documents(
    table: pa.Table, encoder: Tokenizer, batch_documents: int, sources: Sources = _NO_SOURCES
) -> pa.Table:
    """Encode documents (id, text, source, domain, lang, split) into rows of `ENCODED_SCHEMA`, in order.

    Documents of which no copy is taken are left out.
    """
    end_of_text = encoder.token_to_id(END_OF_TEXT)
    assert end_of_text is not None, "load_encoder has looked"
    copies = sources.copies(*(table[name].to_pylist() for name in ("id", "source", "split")))
    table = table.append_column("copies", pa.array(copies)).filter(pa.array(copies > 0))
    batches = [_encode_batch(batch, encoder, end_of_text, sources) for batch in table.to_batches(batch_documents)]
    return pa.Table.from_batches(batches, schema=ENCODED_SCHEMA)


def _encode_batch(batch: pa.RecordBatch, encoder: Tokenizer, end_of_text: int, sources: Sources) -> pa.RecordBatch:
    texts = batch.column("text").to_pylist()
    encoded = encoder.encode_batch_fast(texts, add_special_tokens=False)
    pieces = [piece for encoding in encoded for piece in (encoding.ids, (end_of_text,))]
    flat = np.fromiter(chain.from_iterable(pieces), dtype=np.uint32)
    ends = np.cumsum([len(encoding) + 1 for encoding in encoded], dtype=np.int32)
    ids = pa.ListArray.from_arrays(np.concatenate([[0], ends]).astype(np.int32), flat)
    buckets = sources.buckets(*(batch.column(name).to_pylist() for name in ("source", "domain", "lang")))
    shards = [f"{split}-{name}" for split, name in zip(batch.column("split").to_pylist(), buckets, strict=True)]
    sizes = pc.binary_length(batch.column("text")).cast(pa.int64())
    lengths = pc.list_value_length(ids).cast(pa.int64())
    head = [batch.column("id"), pa.array(shards, pa.string()), batch.column("lang")]
    columns = [*head, sizes, lengths, batch.column("copies"), ids]
    return pa.RecordBatch.from_arrays(columns, schema=ENCODED_SCHEMA)
