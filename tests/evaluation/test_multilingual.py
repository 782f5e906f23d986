"""The multilingual stage: bits per byte, language of the responses, rating forms."""

import json
import math
from functools import cache
from pathlib import Path

import pytest
import torch
from tests.evaluation.models_for_tests import ScriptedEngine, make_checkpoint, make_stage

from qwenops.contracts.tokens import TokenIndex, write_index, write_shard
from qwenops.errors import ContractError
from qwenops.evaluation.multilingual.config import MultilingualConfig
from qwenops.evaluation.multilingual.languages import LanguageCheck
from qwenops.evaluation.multilingual.perplexity import language_loss
from qwenops.evaluation.multilingual.rating import RatedResponse, averages, read_form, write_form
from qwenops.evaluation.multilingual.run import run
from qwenops.model.checkpoints import load_model, load_tokenizer

TEXTS = {"en": "the answer of the question", "de": "die Antwort auf die Frage"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@cache
def check_of(*languages: str) -> LanguageCheck:
    """One check per choice of languages, since each reads the identifier's model."""
    return LanguageCheck(languages)


def make_tokens(folder: Path, tokenizer) -> Path:
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    documents = [[*tokenizer.encode(text), end] for text in TEXTS.values()]
    size = sum(len(text.encode()) for text in TEXTS.values())
    facts = {n: write_shard(folder, n, documents, list(TEXTS), size, "uint16") for n in ("train-web", "heldout-web")}
    languages = {lang: {"tokens": 1, "bytes": len(text.encode())} for lang, text in TEXTS.items()}
    write_index(folder, TokenIndex(len(tokenizer), "uint16", end, {"web": 1.0}, facts, languages))
    return folder


def test_bits_per_byte_equal_the_plain_sum_of_log_probabilities(checkpoint: Path):
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    ids = tokenizer.encode(TEXTS["en"])
    logs = torch.log_softmax(model(torch.tensor([[end, *ids]])).logits[0].detach().float(), -1)
    nats = -sum(float(logs[place, token]) for place, token in enumerate(ids))
    loss = language_loss(model, tokenizer, [[*ids, end]], end, 512, 1000, 1024)
    assert loss is not None
    assert loss.nats_per_token == pytest.approx(nats / len(ids), rel=1e-4)
    assert loss.bits_per_byte == pytest.approx(nats / math.log(2) / len(TEXTS["en"]), rel=1e-4)


def test_long_documents_are_scored_whole_and_within_the_budget(checkpoint: Path):
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    document = [*([40, 41, 42] * 20), end]
    whole = language_loss(model, tokenizer, [document], end, 16, 1000, 1024)
    part = language_loss(model, tokenizer, [document, document], end, 16, 70, 1024)
    assert whole is not None and part is not None
    assert (whole.tokens, part.tokens) == (60, 70)
    assert language_loss(model, tokenizer, [[end]], end, 16, 1000, 1024) is None


@pytest.mark.parametrize(
    ("language", "stays", "leaves"),
    [
        ("zh", "手机是通信工具，1234。", "手机是 phone。"),
        ("ru", "Это ответ.", "Это answer."),
        ("de", "Das ist ein guter Tag und die Sonne scheint.", "This is a good day and the sun is shining."),
        ("en", "This is a good day and the sun is shining.", "This is 好的 a good day."),
        ("fr", "Il fait beau aujourd'hui et le soleil brille.", "El sol brilla hoy y hace buen tiempo en la ciudad."),
    ],
)
def test_language_check_tells_staying_from_switching(language: str, stays: str, leaves: str):
    check = check_of("en", "de", "fr", "es", "zh", "ru")
    assert check.is_in_language(stays, language)
    assert not check.is_in_language(leaves, language)


def test_program_text_in_backquotes_is_no_switch():
    assert check_of("zh").is_in_language("请使用 `print` 函数。", "zh")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_model_that_says_nothing_answers_in_no_language(language: str):
    check = check_of("en", "zh")
    assert not any(check.is_in_language(response, language) for response in ("", " ", "\n\n"))
    assert check.is_in_language("42", language)


def form(tmp_path: Path, *rows: tuple[str, str, str]) -> Path:
    path = tmp_path / "form.csv"
    filled = [RatedResponse(str(n), lang, "maths", "p", "r", grade, name) for n, (lang, grade, name) in enumerate(rows)]
    write_form(path, filled)
    return path


def test_form_survives_the_round_trip(tmp_path: Path):
    path = form(tmp_path, ("en", "4", "Ann"))
    assert read_form(path) == [RatedResponse("0", "en", "maths", "p", "r", "4", "Ann")]


@pytest.mark.parametrize("grade", ["0", "6", "3.5", "", "good"])
def test_grades_other_than_one_to_five_are_refused(tmp_path: Path, grade: str):
    with pytest.raises(ContractError, match="line 2"):
        read_form(form(tmp_path, ("en", grade, "Ann")))


def test_two_annotators_for_one_language_are_refused(tmp_path: Path):
    with pytest.raises(ContractError, match="Ann, Bob"):
        read_form(form(tmp_path, ("en", "4", "Ann"), ("en", "5", "Bob")))


def test_total_is_the_mean_over_languages_and_not_over_items(tmp_path: Path):
    rows = read_form(form(tmp_path, ("en", "5", "Ann"), ("en", "5", "Ann"), ("en", "5", "Ann"), ("de", "1", "Eva")))
    assert averages(rows)["languages"] == {"de": 1.0, "en": 5.0}
    assert averages(rows)["all"] == {"all": 3.0}


def test_stage_measures_each_language_and_writes_an_empty_form(tmp_path: Path, checkpoint: Path):
    tokens = make_tokens(tmp_path / "tokens", load_tokenizer(checkpoint))
    stage = make_stage(tmp_path, "multilingual")
    config = MultilingualConfig(prompts_per_language=1, max_new_tokens=4)
    run(config, base=checkpoint, chat=checkpoint, tokens=tokens, stage=stage)
    assert stage.metrics["bits_per_byte.de"] == pytest.approx(stage.metrics["bits_per_byte.de.base"])
    assert 0 <= stage.metrics["same_language.all"] <= 1
    with pytest.raises(ContractError, match="rating"):
        read_form(stage.out / "rating_form.csv")
    assert len((stage.out / "responses.jsonl").read_text().splitlines()) == 6


def test_response_that_was_lost_is_neither_judged_nor_rated(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    prompts = tmp_path / "prompts.jsonl"
    rows = [("en", "What is a phone?"), ("en", "What is a lamp?"), ("zh", "手机是什么？")]
    prompts.write_text(
        "\n".join(json.dumps({"prompt": text, "language": lang, "group": "g"}) for lang, text in rows), "utf-8"
    )
    said = "A phone is a thing that people use to talk with other people."
    engine = ScriptedEngine(lambda prompt: said if "phone" in prompt else None)
    monkeypatch.setattr("qwenops.evaluation.multilingual.run.open_stage_engine", lambda *_: engine)
    stage = make_stage(tmp_path, "multilingual")
    config = MultilingualConfig(prompts_file=str(prompts), prompts_per_language=2, max_new_tokens=4)
    tokens = make_tokens(tmp_path / "tokens", load_tokenizer(checkpoint))
    run(config, base=checkpoint, chat=checkpoint, tokens=tokens, stage=stage)
    assert stage.metrics["answers.lost"] == 2
    assert (stage.metrics["same_language.en"], stage.metrics["same_language.all"]) == (1.0, 1.0)
    assert "same_language.zh" not in stage.metrics
    assert len((stage.out / "responses.jsonl").read_text().splitlines()) == 1


def test_stage_averages_a_filled_form_and_runs_the_exams_it_has(tmp_path: Path, checkpoint: Path):
    (tmp_path / "exams" / "mgsm").mkdir(parents=True)
    (tmp_path / "exams" / "mgsm" / "mgsm_de.tsv").write_text("Wie viele?\t18\n" * 10)
    stage = make_stage(tmp_path, "multilingual")
    config = MultilingualConfig(
        prompts_per_language=1,
        max_new_tokens=4,
        ratings_file=str(form(tmp_path, ("en", "4", "Ann"))),
        folder=str(tmp_path / "exams"),
        max_shots=2,
    )
    tokens = make_tokens(tmp_path / "tokens", load_tokenizer(checkpoint))
    run(config, base=checkpoint, chat=checkpoint, tokens=tokens, stage=stage)
    assert stage.metrics["human_rating.all"] == 4.0
    assert stage.metrics["mgsm.exact_match"] == 0.0
    assert any("mmmlu was left out" in sentence for sentence in stage.warnings)
    assert json.loads((stage.out / "ratings.json").read_text())["groups"] == {"maths": 4.0}
