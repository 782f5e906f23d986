"""Decontamination: planted items go, the rest stays, and the account names the set."""

import json
import random

from qwenops.contracts.document import documents_from_rows, read_documents, write_part
from qwenops.data.decontaminate.config import DecontaminateConfig
from qwenops.data.decontaminate.planted import disguise, planted_removed
from qwenops.data.decontaminate.run import run
from qwenops.tasks.evalsets import load
from qwenops.tasks.overlap import Leak, OverlapIndex, words

FILLER = "The harbour was quiet that morning and the boats lay still in the grey light of the early day. "


def gold_items(folder):
    items = [Leak("continuation", item.id, item.text) for item in load("continuation", folder)]
    return [item for item in items if len(words(item[2])) >= 13]


def corpus(folder, gold):
    rng = random.Random(0)
    rows = [
        {
            "id": f"d{n:02}",
            "text": FILLER * 3 + f"Number {n}. " + (disguise(gold[n][2], rng) if n < 5 else ""),
            "source": "s",
            "domain": "web",
            "url": "",
            "license": "MIT",
            "lang": "en",
            "lang_score": 1.0,
            "split": "train",
        }
        for n in range(20)
    ]
    for part in range(2):
        write_part(documents_from_rows(rows[part::2]), folder / "documents" / f"part-{part:05}.parquet")


def test_planted_gold_items_are_removed_and_counted(tmp_path, make_stage):
    gold = gold_items(tmp_path)
    corpus(tmp_path, gold)
    stage = make_stage("decontaminate")
    run(DecontaminateConfig(sets=("continuation",), planted_items=30), documents=tmp_path, stage=stage)
    kept = set(read_documents(stage.out)["id"].to_pylist())
    assert kept == {f"d{n:02}" for n in range(5, 20)}
    assert stage.counts == {"read": 20, "kept": 15, "dropped": {"contains_continuation": 5}}
    assert stage.metrics["planted.removed"] >= 0.99
    assert stage.metrics["contaminated.continuation"] == 5
    assert json.loads((stage.out / "contamination.json").read_text())["continuation"]["documents_removed"] == 5


def test_planted_items_of_another_index_are_not_found(tmp_path):
    items = gold_items(tmp_path)
    planted, found = planted_removed(OverlapIndex(items[:1]), items[1:], [FILLER], 20, 13, seed=1)
    assert planted > 10
    assert found == 0


def test_set_without_files_is_left_out_with_a_warning(tmp_path, make_stage):
    corpus(tmp_path, gold_items(tmp_path))
    stage = make_stage("decontaminate")
    run(DecontaminateConfig(sets=("continuation", "mmlu")), documents=tmp_path, stage=stage)
    assert any("mmlu" in sentence for sentence in stage.warnings)


def test_disguise_keeps_the_words():
    text = "What is the sum of four and five?"
    assert words(disguise(text, random.Random(3))) == words(text)
