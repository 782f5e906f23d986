"""Measure base and chat model by language: held-out loss, language of the responses, exams, people's ratings."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from qwenops.contracts.checkpoint import read_facts
from qwenops.contracts.conversation import ask, conversation_id, read_json_lines
from qwenops.contracts.tokens import TokenShards
from qwenops.errors import ContractError
from qwenops.evaluation.harness import EvalSpec, Evaluator, summarise
from qwenops.evaluation.likelihood import load_scorer
from qwenops.evaluation.multilingual.config import MultilingualConfig
from qwenops.evaluation.multilingual.languages import LanguageCheck
from qwenops.evaluation.multilingual.perplexity import LanguageLoss, language_loss
from qwenops.evaluation.multilingual.rating import RatedResponse, averages, read_form, write_form
from qwenops.evaluation.registry import TASKS
from qwenops.generation.engine import Sampling
from qwenops.model.checkpoints import load_tokenizer
from qwenops.platform.engines import open_stage_engine
from qwenops.platform.stage.handle import Stage
from qwenops.tasks.evalsets import choose_items, load_available
from qwenops.tasks.safety_prompts import load as load_prompts

LOSSES = "losses.json"
RESPONSES = "responses.jsonl"
FORM = "rating_form.csv"
_EXAMS = ("mmmlu", "mgsm")


def run(config: MultilingualConfig, *, base: Path, chat: Path, tokens: Path, stage: Stage) -> None:
    """Write losses.json, responses.jsonl, rating_form.csv, exams.json, ratings.json and summary.md.

    Args:
        config: What is measured.
        base: Base checkpoint.
        chat: Aligned checkpoint; its figures carry the plain metric names.
        tokens: Token shards with held-out text by language.
        stage: Where to report to.
    """
    losses = _losses(config, {"base": base, "chat": chat}, TokenShards(tokens), stage)
    _write_json(stage.out / LOSSES, {n: {k: v.as_plain() for k, v in own.items()} for n, own in losses.items()})
    same = _check_responses(config, chat, stage)
    figures = _examine(config, {"base": base, "chat": chat}, stage) if config.folder else []
    _write_json(stage.out / "exams.json", figures)
    ratings = averages(read_form(Path(config.ratings_file))) if config.ratings_file else {}
    _write_json(stage.out / "ratings.json", ratings)
    _report(stage, losses, same, figures, ratings)
    _write_summary(stage.out / "summary.md", losses, same)
    stage.records = sum(loss.tokens for loss in losses["chat"].values())


def _losses(
    config: MultilingualConfig, models: Mapping[str, Path], shards: TokenShards, stage: Stage
) -> dict[str, dict[str, LanguageLoss]]:
    """Loss of every model on held-out text of every language that has enough of it."""
    languages = shards.heldout_by_language()
    losses: dict[str, dict[str, LanguageLoss]] = {}
    with stage.progress(len(models) * len(languages), "languages") as progress:
        for name, path in models.items():
            model, tokenizer, facts = load_scorer(path), load_tokenizer(path), read_facts(path)
            losses[name] = {}
            for language, (documents, _) in languages.items():
                loss = language_loss(
                    model,
                    tokenizer,
                    documents,
                    end_of_text=shards.end_of_text,
                    context_tokens=facts.context_length_tokens,
                    token_budget=config.tokens_per_language,
                    batch_tokens=config.batch_tokens,
                )
                if loss is not None:
                    losses[name][language] = loss
                progress.advance(1, f"{name} {language}")
    return losses


def _check_responses(config: MultilingualConfig, chat: Path, stage: Stage) -> dict[str, float]:
    """Answer the prompts, write the form, and return the share of responses that stay in their language.

    A response that never came is counted and in no share.
    """
    rows = _prompts(config)
    if not rows:
        return {}
    prompts = [ask(row.prompt) for row in rows]
    sampling = Sampling(max_new_tokens=config.max_new_tokens, seed=stage.seed)
    with stage.progress(len(prompts), "prompts") as progress:
        engine = open_stage_engine(config.engine, stage.scratch, chat)
        samples = [group[0] for group in engine.generate(prompts, sampling)]
        progress.advance(len(prompts))
    answered = [
        RatedResponse(row.id, row.language, row.group, row.prompt, sample.text)
        for row, sample in zip(rows, samples, strict=True)
        if sample.finish != "lost"
    ]
    _count_lost(stage, len(rows) - len(answered))
    write_form(stage.out / FORM, answered)
    languages = tuple(dict.fromkeys(row.language for row in answered))
    check = LanguageCheck(languages)
    stays = [check.is_in_language(row.response, row.language) for row in answered]
    with (stage.out / RESPONSES).open("w", encoding="utf-8") as stream:
        for row, stay in zip(answered, stays, strict=True):
            stream.write(json.dumps(asdict(row) | {"same_language": stay}, ensure_ascii=False) + "\n")
    return {
        language: fmean(stay for row, stay in zip(answered, stays, strict=True) if row.language == language)
        for language in languages
    }


def _count_lost(stage: Stage, lost: int) -> None:
    stage.metric("answers.lost", lost)
    if lost:
        stage.warn(f"{lost} answers to the prompts were lost by the endpoint and were not judged")


def _prompts(config: MultilingualConfig) -> list[RatedResponse]:
    if config.prompts_file:
        rows = [_rated(where, row) for where, row in read_json_lines(Path(config.prompts_file))]
    else:
        own = load_prompts("heldout", category="benign")
        rows = [RatedResponse(prompt.id, prompt.language, "knowledge", prompt.text, "") for prompt in own]
    taken: dict[str, int] = {}
    kept: list[RatedResponse] = []
    for row in rows:
        taken[row.language] = taken.get(row.language, 0) + 1
        if taken[row.language] <= config.prompts_per_language:
            kept.append(row)
    return kept


def _rated(where: str, row: Mapping[str, Any]) -> RatedResponse:
    try:
        return RatedResponse(conversation_id("rating", row["prompt"]), row["language"], row["group"], row["prompt"], "")
    except KeyError as error:
        raise ContractError(f"{where} lacks a field", expected="prompt, language, group", found=error) from None


def _examine(config: MultilingualConfig, models: Mapping[str, Path], stage: Stage) -> list[dict[str, Any]]:
    """M-MMLU and MGSM where the user has them; each language is a subject."""
    cache = stage.context.cache_folder("evalsets")
    available = load_available(_EXAMS, config.folder, cache, shots=config.max_shots > 0)
    for sentence in available.missing.values():
        stage.warn(sentence)
    figures: list[dict[str, Any]] = []
    for name, path in models.items():
        evaluator = Evaluator(name, path, config.engine, config.batch_tokens, stage.scratch, None)
        for task, items in available.items.items():
            sampling = Sampling(max_new_tokens=min(config.max_new_tokens, TASKS[task].answer_tokens), seed=stage.seed)
            chosen = choose_items(items, config.limit_items, stage.seed)
            shots = min(TASKS[task].shots, config.max_shots)
            spec = EvalSpec(TASKS[task], chosen, available.shots[task], shots, sampling)
            figures.append(summarise(name, spec, evaluator.answer(spec)))
    return figures


def _report(
    stage: Stage,
    losses: Mapping[str, Mapping[str, LanguageLoss]],
    same: Mapping[str, float],
    figures: Sequence[Mapping[str, Any]],
    ratings: Mapping[str, Mapping[str, float]],
) -> None:
    for name, own in losses.items():
        suffix = "" if name == "chat" else f".{name}"
        for language, loss in own.items():
            stage.metric(f"bits_per_byte.{language}{suffix}", loss.bits_per_byte)
            stage.metric(f"loss.{language}{suffix}", loss.nats_per_token)
    for language, share in same.items():
        stage.metric(f"same_language.{language}", share)
    if same:
        stage.metric("same_language.all", fmean(same.values()))
    for row in figures:
        suffix = "" if row["model"] == "chat" else f".{row['model']}"
        if row["items"]:
            stage.metric(f"{row['task']}.{row['metric']}{suffix}", row["score"])
        if row["too_long"]:
            stage.warn(f"{row['task']}: {row['too_long']} prompts do not fit the context and were not scored")
        if row["lost"]:
            stage.warn(f"{row['task']}: {row['lost']} answers were lost by the endpoint and were not scored")
    for language, mean in {**ratings.get("languages", {}), **ratings.get("all", {})}.items():
        stage.metric(f"human_rating.{language}", mean)


def _write_summary(path: Path, losses: Mapping[str, Mapping[str, LanguageLoss]], same: Mapping[str, float]) -> None:
    lines = ["# Languages", "", "| language | bytes | bits per byte, base | chat | responses in the language |"]
    lines.append("|---|---|---|---|---|")
    for language in sorted({*losses["chat"], *same}):
        base, chat = losses["base"].get(language), losses["chat"].get(language)
        bits = [f"{loss.bits_per_byte:.3f}" if loss else "none" for loss in (base, chat)]
        stay = f"{same[language]:.2f}" if language in same else "not asked"
        lines.append(f"| {language} | {chat.bytes if chat else 0} | {bits[0]} | {bits[1]} | {stay} |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
