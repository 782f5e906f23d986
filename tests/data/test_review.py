"""Review: a page with a seeded sample, a person's decisions as weights, and what the weights do to the tokens."""

import json
import re
import shutil

import pytest
from tests.browser import dom_of
from tests.data.test_tokens import KINDS, corpus
from transformers import AutoTokenizer

from qwenops.contracts.document import documents_from_rows, write_part
from qwenops.contracts.manifest import Manifest, digest_files, write_manifest
from qwenops.contracts.tokens import TokenShards
from qwenops.data.mixture.config import MixtureConfig, SourceWeight
from qwenops.data.mixture.run import run as mixture
from qwenops.data.review import override_text, sample_sources, source_weights, write_page
from qwenops.data.tokenizer.bpe import save, train
from qwenops.data.tokens.config import TokensConfig
from qwenops.data.tokens.run import run as tokens
from qwenops.errors import ContractError, RecipeError
from qwenops_pipelines.recipes import load_recipe

_SOURCES = ("crawl", "books", "tasks")


def rows():
    return [row | {"source": _SOURCES[number % 3 if number % 9 else 2]} for number, row in enumerate(corpus(60))]


def artifact(folder, parts=1):
    for part in range(parts):
        write_part(documents_from_rows(rows()[part::parts]), folder / "documents" / f"part-{part:05}.parquet")
    manifest = Manifest(
        node="dedup", fingerprint="f", artifact_id="made-once", parents={}, files=digest_files(folder), records=1,
        counts={}, metrics={}, warnings=(), seconds=0.0, config={}, code_version="", created_at="",
    )  # fmt: skip
    write_manifest(folder, manifest)
    return folder


def test_sample_depends_on_the_seed_alone(tmp_path):
    one, four = artifact(tmp_path / "one"), artifact(tmp_path / "four", 4)
    sample = sample_sources(one, 5, seed=1)
    assert sample == sample_sources(four, 5, seed=1) != sample_sources(one, 5, seed=2)
    assert [(facts["source"], len(facts["documents"])) for facts in sample] == [(name, 5) for name in sorted(_SOURCES)]
    assert sum(facts["total"] for facts in sample) == len(rows())
    assert len(sample_sources(one, 10_000, seed=1)[0]["documents"]) == sample[0]["total"]


def test_page_carries_any_text_unharmed(tmp_path):
    evil = "</script><script>alert(1)</script> <!-- <b>bold</b> \u2028 \\ @@STYLE@@"
    folder = tmp_path / "artifact"
    write_part(documents_from_rows([rows()[0] | {"text": evil}]), folder / "documents" / "part-00000.parquet")
    artifact_with_manifest = artifact(tmp_path / "other") / "manifest.json"
    shutil.copy(artifact_with_manifest, folder)
    assert write_page(folder, tmp_path / "review.html", 5, 0) == 1
    text = (tmp_path / "review.html").read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert json.loads(data.group(1))["sources"][0]["documents"][0]["text"] == evil
    assert text.count("</script>") == 2


def test_page_builds_itself_in_a_browser_from_a_file(tmp_path):
    write_page(artifact(tmp_path / "artifact"), tmp_path / "review.html", 4, 0)
    shown = dom_of(tmp_path / "review.html", tmp_path / "browser")
    assert "0 of 12 documents judged" in shown
    assert shown.count('class="doc"') == 12 and all(f"<h2>{name}</h2>" in shown for name in _SOURCES)


def test_decisions_become_the_setting_of_a_recipe(tmp_path):
    made = {"version": 1, "sources": {"crawl": {"weight": 0}, "books": {"weight": 2.5}, "tasks": {"weight": 1}}}
    (tmp_path / "decisions.json").write_text(json.dumps(made))
    weights = source_weights(tmp_path / "decisions.json")
    assert weights == [SourceWeight(source="books", weight=2.5), SourceWeight(source="crawl", weight=0.0)]
    assert load_recipe("smoke", [override_text(weights)]).mixture.source_weights == tuple(weights)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"version": 2, "sources": {}}', '{"version": 1, "sources": {"a": {"weight": -1}}}']
)
def test_other_files_are_no_decisions(tmp_path, text):
    (tmp_path / "decisions.json").write_text(text)
    with pytest.raises(RecipeError):
        source_weights(tmp_path / "decisions.json")


def make_tokens(tmp_path, make_stage, **settings):
    folder = artifact(tmp_path / "artifact", 3)
    save(train([text for _, _, text in KINDS] * 20, 300, 2), tmp_path / "tokenizer")
    given = {"documents": folder, "tokenizer": tmp_path / "tokenizer"}
    chosen, shards = make_stage("mixture"), make_stage("tokens")
    mixture(MixtureConfig(proxies=0, sample_bytes=5000, planned_tokens=20_000, **settings), stage=chosen, **given)
    tokens(TokensConfig(checked_documents=9), mixture=chosen.out, stage=shards, **given)
    facts = json.loads((chosen.out / "mixture.json").read_text())
    decoder = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    found = TokenShards(shards.out)
    texts = {split: [decoder.decode(ids[:-1]) for ids in found.documents(split)] for split in ("train", "heldout")}
    return facts, found, texts, shards


def test_weights_repeat_and_drop_documents_exactly(tmp_path, make_stage):
    weights = (SourceWeight(source="crawl", weight=0.0), SourceWeight(source="books", weight=3.0))
    facts, found, texts, stage = make_tokens(tmp_path, make_stage, source_weights=weights)
    expected = {"train": [], "heldout": []}
    for row in rows():
        times = {"crawl": 0, "books": 3 if row["split"] == "train" else 1, "tasks": 1}[row["source"]]
        expected[row["split"]] += [row["text"]] * times
    assert {split: sorted(found) for split, found in texts.items()} == {s: sorted(t) for s, t in expected.items()}
    gone = sum(row["source"] == "crawl" for row in rows())
    assert stage.counts == {"read": len(rows()), "kept": len(rows()) - gone, "dropped": {"source_weight": gone}}
    found.verify()
    assert sum(facts["weights"].values()) == pytest.approx(1)


def test_fraction_takes_a_fixed_choice_of_the_documents(tmp_path, make_stage):
    _, _, texts, _ = make_tokens(tmp_path, make_stage, source_weights=(SourceWeight(source="books", weight=0.5),))
    books = [row["text"] for row in rows() if row["source"] == "books" and row["split"] == "train"]
    taken = [text for text in texts["train"] if text in set(books)]
    assert 0.25 * len(books) < len(taken) < 0.75 * len(books) and len(set(taken)) == len(taken)


def test_instructions_have_the_share_that_the_recipe_sets(tmp_path, make_stage):
    facts, found, _, _ = make_tokens(
        tmp_path, make_stage, instruction_sources=("tasks",), instruction_share=0.1, max_epochs=100.0
    )
    assert facts["weights"]["instructions"] == 0.1 and sum(facts["weights"].values()) == pytest.approx(1)
    assert found.weights == facts["weights"]
    expected = sorted(row["text"] for row in rows() if row["source"] == "tasks" and row["split"] == "train")
    decoder = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert sorted(decoder.decode(ids[:-1]) for ids in found.documents("train", "instructions")) == expected


def test_instructions_without_documents_are_refused(tmp_path, make_stage):
    with pytest.raises(ContractError, match="instructions cannot be mixed in"):
        make_tokens(tmp_path, make_stage, instruction_sources=("nobody",))
