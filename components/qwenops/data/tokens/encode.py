"""Encode a part of the documents: ids ending with the end-of-text token, and what is needed to sort them.

Untrusted text is encoded so that a control token's surface form stays text; the one control id of a document is
the end of text that is appended here. The `tokenizers` library reads the folder: a worker process then need not
import transformers, which takes longer than encoding a part.
"""

from pathlib import Path

import pyarrow as pa
from tokenizers import Tokenizer

from qwenops.contracts.tokens import END_OF_TEXT
from qwenops.data.buckets import bucket_of
from qwenops.errors import ContractError

ENCODED_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("shard", pa.string()),
        pa.field("lang", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("ids", pa.list_(pa.uint32())),
    ]
)


def load_encoder(folder: Path) -> Tokenizer:
    """The tokenizer of a folder, set to read control tokens in a text as text.

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


def encode_documents(table: pa.Table, encoder: Tokenizer, batch_documents: int) -> pa.Table:
    """Encode documents (id, text, domain, lang, split) into rows of `ENCODED_SCHEMA`, in order."""
    end_of_text = encoder.token_to_id(END_OF_TEXT)
    batches = [_encode_batch(batch, encoder, end_of_text) for batch in table.to_batches(batch_documents)]
    return pa.Table.from_batches(batches, schema=ENCODED_SCHEMA)


def _encode_batch(batch: pa.RecordBatch, encoder: Tokenizer, end_of_text: int) -> pa.RecordBatch:
    rows = batch.to_pylist()
    encoded = encoder.encode_batch_fast([row["text"] for row in rows], add_special_tokens=False)
    return pa.RecordBatch.from_pylist(
        [
            {
                "id": row["id"],
                "shard": f"{row['split']}-{bucket_of(row['domain'], row['lang'])}",
                "lang": row["lang"],
                "bytes": len(row["text"].encode()),
                "ids": [*encoding.ids, end_of_text],
            }
            for row, encoding in zip(rows, encoded, strict=True)
        ],
        schema=ENCODED_SCHEMA,
    )
