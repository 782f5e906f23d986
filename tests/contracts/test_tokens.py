"""Token shards: nothing lost, weights honoured, the same rows whenever and wherever they are read."""

import itertools
import json

import numpy as np
import pytest

from qwenops.contracts.tokens import TokenIndex, TokenShards, dtype_of, read_index, write_index, write_shard
from qwenops.errors import ContractError

END = 99
# Rows are drawn by a low-discrepancy sequence: after a thousand rows a share is off by a few rows at most.
SHARE_TOLERANCE = 0.005


def make_artifact(folder, weights=(0.7, 0.3), documents=40, longest_code=30):
    rng = np.random.default_rng(0)
    shards = {}
    for split, domain, low in (("train", "web", 0), ("train", "code", 50), ("heldout", "web", 0)):
        longest = longest_code if domain == "code" else 30
        texts = [[*rng.integers(low, low + 49, rng.integers(1, longest)).tolist(), END] for _ in range(documents)]
        languages = ["en" if i % 2 else "de" for i in range(documents)]
        shards[f"{split}-{domain}"] = write_shard(folder, f"{split}-{domain}", texts, languages, 1000, "uint16")
    shares = dict(zip(("web", "code"), weights, strict=True))
    held = {"en": {"tokens": 1, "bytes": 500}, "de": {"tokens": 1, "bytes": 500}}
    write_index(folder, TokenIndex(100, "uint16", END, shares, shards, held))
    return TokenShards(folder)


def test_packed_one_epoch_of_a_domain_holds_every_token_once(tmp_path):
    shards = make_artifact(tmp_path, weights=(1.0, 0.0))
    total = shards.index.shards["train-web"].tokens
    rows = list(itertools.islice(shards.packed("train", 1, seed=1), total))
    stored = np.concatenate(list(shards.documents("train", "web")))
    assert np.array_equal(np.sort(np.concatenate([row.ids for row in rows])), np.sort(stored))


def test_packed_documents_continue_in_the_next_row_of_their_domain(tmp_path):
    shards = make_artifact(tmp_path, weights=(1.0, 0.0))
    rows = list(itertools.islice(shards.packed("train", 7, seed=1), 60))
    stream, places = (np.concatenate([row[field] for row in rows]) for field in (0, 1))
    stored = list(shards.documents("train", "web"))
    last = places[-1]
    assert {row.domain for row in rows} == {"web"}
    for place in set(places.tolist()) - {last}:
        assert np.array_equal(stream[places == place], stored[place])


def test_packed_resumed_at_a_row_continues_identically(tmp_path):
    shards = make_artifact(tmp_path)
    whole = list(itertools.islice(shards.packed("train", 16, seed=3), 300))
    rest = list(itertools.islice(shards.packed("train", 16, seed=3, start_row=211), 89))
    for row, other in zip(whole[211:], rest, strict=True):
        assert np.array_equal(row.ids, other.ids)
        assert (row.names, row.domain) == (other.names, other.domain)


def test_packed_of_long_documents_holds_each_of_their_tokens_once_and_no_other(tmp_path):
    shards = make_artifact(tmp_path, weights=(1.0, 0.0))
    long = [document for document in shards.documents("train", "web") if len(document) >= 20]
    total = sum(map(len, long))
    assert 0 < total < shards.index.shards["train-web"].tokens
    rows = list(itertools.islice(shards.packed("train", 1, seed=1, least_tokens=20), total))
    assert np.array_equal(np.sort(np.concatenate([row.ids for row in rows])), np.sort(np.concatenate(long)))


def test_packed_of_long_documents_leaves_out_a_domain_without_any(tmp_path):
    shards = make_artifact(tmp_path, weights=(0.1, 0.9), longest_code=15)
    rows = itertools.islice(shards.packed("train", 32, seed=1, least_tokens=20), 20)
    assert all((row.ids[row.ids != END] < 50).all() for row in rows)
    with pytest.raises(ContractError, match="no train documents to pack"):
        next(shards.packed("train", 32, seed=1, least_tokens=31))


def test_packed_another_seed_gives_another_order(tmp_path):
    shards = make_artifact(tmp_path)
    first, second = (next(shards.packed("train", 64, seed=seed)).ids for seed in (1, 2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("weights", [(0.7, 0.3), (0.01, 0.99), (0.5, 0.5)])
def test_packed_realised_shares_follow_the_weights(tmp_path, weights):
    shards = make_artifact(tmp_path, weights)
    rows = itertools.islice(shards.packed("train", 32, seed=5), 1000)
    rows_web = sum(row.ids[row.ids != END][0] < 50 for row in rows)
    assert abs(rows_web / 1000 - weights[0]) < SHARE_TOLERANCE


def test_documents_by_language_and_domain_end_with_end_of_text(tmp_path):
    shards = make_artifact(tmp_path)
    german = list(shards.documents("train", "code", "de"))
    assert len(german) == 20
    assert all(document[-1] == END for document in german)
    texts, size = shards.heldout_by_language()["en"]
    assert (len(texts), size) == (20, 500)


def test_dtype_grows_with_the_vocabulary():
    assert (dtype_of(65_536), dtype_of(151_646)) == ("uint16", "uint32")


def test_index_with_weight_on_a_missing_domain_is_refused(tmp_path):
    make_artifact(tmp_path)
    plain = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(plain | {"weights": {"web": 0.5, "math": 0.5}}))
    with pytest.raises(ContractError, match="math"):
        read_index(tmp_path)


def test_truncated_shard_is_refused(tmp_path):
    make_artifact(tmp_path)
    path = tmp_path / "shards" / "train-web.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ContractError, match="train-web"):
        TokenShards(tmp_path)


def test_changed_shard_fails_verification(tmp_path):
    make_artifact(tmp_path)
    path = tmp_path / "shards" / "train-web.bin"
    path.write_bytes(b"\x01\x00" + path.read_bytes()[2:])
    with pytest.raises(ContractError, match="changed"):
        TokenShards(tmp_path).verify()
