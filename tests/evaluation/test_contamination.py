"""The contamination stage: planted overlap is found, clean scores follow from the items."""

import json
from pathlib import Path

import pytest
from tests.evaluation.models_for_tests import make_stage

from qwenops.contracts.conversation import Conversation, answer, ask, write_conversations
from qwenops.contracts.document import documents_from_rows, write_part
from qwenops.evaluation.contamination.analysis import Occurrences, analyse, build_index
from qwenops.evaluation.contamination.config import ContaminationConfig
from qwenops.evaluation.contamination.run import run
from qwenops.tasks.overlap import Leak

WORDS = [f"word{n}" for n in range(40)]


def item_row(number: int, score: float | None, text: str, model: str = "chat") -> dict[str, object]:
    return {"task": "quiz", "model": model, "id": f"quiz/{number}", "score": score, "text": text}


def sentence(start: int, length: int) -> str:
    return " ".join(WORDS[start : start + length])


@pytest.mark.parametrize(("shared", "found"), [(12, False), (13, True), (20, True)])
def test_thirteen_shared_words_contaminate_and_twelve_do_not(shared: int, found: bool):
    index = build_index([Leak("quiz", "quiz/0", sentence(0, 20))], 13)
    occurrences = Occurrences()
    assert occurrences.search(index, "documents", ["other text before, " + sentence(0, shared) + " and after"]) == 1
    assert bool(occurrences.places) == found


def test_punctuation_and_case_do_not_hide_an_item():
    occurrences = Occurrences()
    index = build_index([Leak("quiz", "quiz/0", sentence(0, 15))], 13)
    occurrences.search(index, "documents", [", ".join(WORDS[:15]).upper() + "!"])
    assert ("quiz", "quiz/0") in occurrences.places


def test_clean_score_is_the_mean_over_items_not_seen():
    rows = [item_row(0, 1.0, "a"), item_row(1, 0.0, "b"), item_row(2, 1.0, "c"), item_row(3, None, "d")]
    facts = analyse(rows, Occurrences({("quiz", "quiz/1"): {"documents": 2}}), 5)["quiz"]
    assert (facts["items"], facts["contaminated"], facts["share"]["value"]) == (4, 1, 0.25)
    chat = facts["models"]["chat"]
    assert chat["original"]["value"] == pytest.approx(2 / 3)
    assert chat["clean"]["value"] == 1.0
    assert chat["delta"] == pytest.approx(1 / 3)
    assert facts["examples"] == [{"id": "quiz/1", "seen_in": {"documents": 2}}]


def test_set_without_a_clean_item_has_no_clean_score():
    facts = analyse([item_row(0, 1.0, "a")], Occurrences({("quiz", "quiz/0"): {"documents": 1}}), 5)["quiz"]
    assert facts["models"]["chat"]["clean"] is None
    assert facts["models"]["chat"]["delta"] is None


def test_stage_reads_training_text_of_every_source_and_no_heldout_text(tmp_path: Path):
    texts = {0: sentence(0, 15), 1: sentence(15, 15), 2: sentence(25, 15), 3: "too short"}
    benchmarks = tmp_path / "benchmarks"
    benchmarks.mkdir()
    rows = [item_row(n, float(n % 2), text, model) for model in ("base", "chat") for n, text in texts.items()]
    (benchmarks / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (benchmarks / "scores.json").write_text(json.dumps([{"task": "quiz", "metric": "accuracy"}]))
    common = {"source": "s", "domain": "web", "url": "u", "license": "l", "lang": "en", "lang_score": 1.0}
    documents = [
        {"id": "a", "text": texts[0], "split": "train", **common},
        {"id": "b", "text": texts[1], "split": "heldout", **common},
    ]
    write_part(documents_from_rows(documents), tmp_path / "documents" / "documents" / "part-0.parquet")
    for name, text in (("evolve", "nothing"), ("synthesize", texts[2])):
        (tmp_path / name).mkdir()
        write_conversations(tmp_path / name, [Conversation("1", answer(ask("Say it"), text))])
    stage = make_stage(tmp_path, "contamination")
    run(
        ContaminationConfig(),
        documents=tmp_path / "documents",
        demonstrations=tmp_path / "evolve",
        synthesized=tmp_path / "synthesize",
        benchmarks=benchmarks,
        stage=stage,
    )
    report = json.loads((stage.out / "contamination.json").read_text())
    assert report["texts_read"] == {"documents": 1, "demonstrations": 1, "synthesized": 1}
    assert report["tasks"]["quiz"]["sources"] == {"documents": 1, "synthesized": 1}
    assert stage.metrics["quiz.contaminated_share"] == 0.5
    assert stage.metrics["quiz.accuracy.original"] == 0.5
    assert stage.metrics["quiz.accuracy.clean"] == 1.0
