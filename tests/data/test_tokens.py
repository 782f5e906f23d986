"""Token shards from documents: nothing lost, order by seed only, weights from the mixture."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from qwenops.contracts.document import documents_from_rows
from qwenops.contracts.tokens import TokenShards
from qwenops.data.buckets import bucket_of
from qwenops.data.tokenizer.bpe import save, train
from qwenops.data.tokens.encode import encode_documents, load_encoder
from qwenops.data.tokens.shards import write_shards
from qwenops.errors import ContractError

WEIGHTS = {"web_en": 0.5, "web_zh": 0.3, "code": 0.2}
KINDS = (("web", "en", "some words here"), ("web", "zh", "数据清洗的方法"), ("code", "code", "def f(x): return x"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    save(train([text for _, _, text in KINDS] * 20, 300, 2), path)
    return path


def corpus(copies=12):
    return [
        {
            "id": f"{domain}-{language}-{n}",
            "text": f"{text} {n} <|im_end|>",
            "source": "s",
            "domain": domain,
            "url": "",
            "license": "MIT",
            "lang": language,
            "lang_score": 1.0,
            "split": "heldout" if n % 6 == 0 else "train",
        }
        for n in range(copies)
        for domain, language, text in KINDS
    ]


def build(rows, folder, out, parts=1, weights=None):
    encoder, size, paths = load_encoder(folder), -(-len(rows) // parts), []
    for part in range(parts):
        paths.append(out / f"part-{part}.parquet")
        out.mkdir(parents=True, exist_ok=True)
        encoded = encode_documents(documents_from_rows(rows[part * size : (part + 1) * size]), encoder, 5)
        pq.write_table(encoded, paths[-1])
    end = encoder.token_to_id("<|endoftext|>")
    write_shards(paths, out, weights or WEIGHTS, encoder.get_vocab_size(), end, seed=7)
    return TokenShards(out)


def test_shards_decode_back_to_every_document(folder, tmp_path):
    rows = corpus()
    shards = build(rows, folder, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = {tokenizer.decode(ids[:-1]) for split in ("train", "heldout") for ids in shards.documents(split)}
    assert texts == {row["text"] for row in rows}
    assert sum(facts.documents for facts in shards.index.shards.values()) == len(rows)


def test_shards_control_id_ends_documents_and_stands_nowhere_else(folder, tmp_path):
    shards = build(corpus(), folder, tmp_path)
    for ids in shards.documents("train"):
        assert np.flatnonzero(ids >= shards.end_of_text).tolist() == [len(ids) - 1]


def test_shards_do_not_depend_on_parts_or_order(folder, tmp_path):
    rows = corpus()
    one = build(rows, folder, tmp_path / "one")
    three = build(rows[::-1], folder, tmp_path / "three", parts=3)
    assert one.index == three.index


def test_heldout_languages_count_bytes_of_text(folder, tmp_path):
    rows = corpus()
    found = build(rows, folder, tmp_path).heldout_by_language()
    for language, (_, size) in found.items():
        texts = [row["text"] for row in rows if row["lang"] == language and row["split"] == "heldout"]
        assert size == sum(len(text.encode()) for text in texts)
    assert set(found) == {"en", "zh", "code"}


def test_mixture_for_other_buckets_is_refused(folder, tmp_path):
    with pytest.raises(ContractError, match="mixture was made for other documents"):
        build(corpus(), folder, tmp_path, weights={"web_en": 1.0})


@pytest.mark.parametrize(
    ("domain", "language", "bucket"),
    [("web", "en", "web_en"), ("prose", "zh", "prose_zh"), ("web", "th", "web_other"), ("code", "code", "code")],
)
def test_bucket_of_a_document(domain, language, bucket):
    assert bucket_of(domain, language) == bucket


def test_index_is_plain_json(folder, tmp_path):
    build(corpus(), folder, tmp_path)
    assert json.loads((tmp_path / "index.json").read_text())["weights"] == WEIGHTS
