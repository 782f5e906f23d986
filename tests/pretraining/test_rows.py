import itertools

import numpy as np
import pytest
import torch

from qwenops.contracts.tokens import TokenShards
from qwenops.model.checkpoints import load_tokenizer
from qwenops.pretraining.rows import LONG_SEED, Phase, Practice, RowSource


@pytest.fixture(scope="module")
def source(artifacts):
    phases = (Phase(length=64, steps=3), Phase(length=128, steps=3))
    return RowSource(
        TokenShards(artifacts["tokens"]),
        load_tokenizer(artifacts["tokenizer"]),
        phases,
        Practice(needle_share=0.5),
        batch_tokens=1024,
        seed=3,
    )


def test_batches_follow_the_phases_and_shares(source):
    batches = list(source.batches()(0))
    assert [batch["input_ids"].shape for batch in batches] == [(16, 64)] * 3 + [(8, 128)] * 3
    assert [batch["domain_names"] for batch in batches] == [["needles", "web"]] * 6
    assert all(name.startswith("web/") for batch in batches for name in batch["documents"])
    heavy = [(batch["weights"] == 8).any(1).sum().item() for batch in batches]
    assert heavy == [8] * 3 + [4] * 3


def test_batches_from_the_middle_equal_those_of_the_whole_stream(source):
    whole = list(source.batches()(0))
    for start in (2, 3, 4):
        rest = list(source.batches()(start))
        assert len(rest) == 6 - start
        for one, two in zip(whole[start:], rest, strict=True):
            assert torch.equal(one["input_ids"], two["input_ids"])


def test_workers_share_the_rows_of_a_step(source):
    whole = next(source.batches()(0))
    parts = [next(RowSource(**{**vars(source), "rank": rank, "world_size": 2}).batches()(0)) for rank in range(2)]
    together = itertools.chain.from_iterable(part["input_ids"].tolist() for part in parts)
    assert sorted(together) == sorted(whole["input_ids"].tolist())
    assert sum(part["num_tokens"] for part in parts) == whole["num_tokens"]


def test_rows_of_long_documents_lie_evenly_among_the_text(source):
    text, phases = source.text, (Phase(length=64, steps=4),)
    changed = {"phases": phases, "practice": Practice(), "batch_tokens": 192, "long_share": 0.5, "long_tokens": 400}
    mixed = RowSource(**{**vars(source), **changed})
    rows = np.concatenate([batch["input_ids"].numpy() for batch in mixed.batches()(0)])
    usual = text.packed("train", 65, source.seed)
    long = text.packed("train", 65, source.seed + LONG_SEED, least_tokens=400)
    for place, row in enumerate(rows):
        assert np.array_equal(row, next(long if place % 2 else usual)[0][:-1])
    rest = np.concatenate([batch["input_ids"].numpy() for batch in mixed.batches()(3)])
    assert np.array_equal(rest, rows[9:])
