"""Run one benchmark on one model: build prompts, ask, score, keep every item.

A prompt that does not fit the model's context together with its answer is never cut: the item is counted as too long
and left unscored, because a truncated question measures something else. Nor is an answer that an endpoint lost a wrong
one: it is counted apart. The figure of a benchmark is over the items that were answered.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qwenops.contracts.checkpoint import read_facts
from qwenops.evaluation.likelihood import load_scorer, log_likelihoods, split_continuation
from qwenops.evaluation.registry import Task
from qwenops.evaluation.scoring import JudgeProgram, score_responses
from qwenops.evaluation.statistics import wilson
from qwenops.generation.chat import encode_prompts, render
from qwenops.generation.config import EngineConfig
from qwenops.generation.engine import Engine, Prompt, Sampling
from qwenops.model.checkpoints import load_tokenizer
from qwenops.platform.engines import open_stage_engine
from qwenops.tasks.evalitem import EvalItem

Format = Literal["text", "chat"]


@dataclass(frozen=True)
class ItemResult:
    """One item as one model answered it; a row of `items.jsonl`.

    Attributes:
        task: Benchmark.
        model: "base", "moe" or "chat".
        id: The item's id.
        subject: The item's subject.
        prompt: What the model read, control tokens in contents defused.
        output: The responses that came, or the options' log-likelihoods.
        gold: The right answer.
        score: 0 to 1; None when the item was too long to ask or no response came.
        text: The item's own words, for the contamination analysis.
        lost: Responses that never came.
    """

    task: str
    model: str
    id: str
    subject: str
    prompt: str
    output: list[Any]
    gold: str
    score: float | None
    text: str
    lost: int = 0


@dataclass(frozen=True)
class EvaluatedModel:
    """A model that is evaluated: its name, how it is spoken to, the longest sequence it was trained at."""

    name: str
    form: Format
    context_tokens: int
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class EvalSpec:
    """One benchmark as it is asked here: items, pool of worked examples, number of shots, sampling."""

    task: Task
    items: Sequence[EvalItem]
    pool: Sequence[EvalItem]
    shots: int
    sampling: Sampling


class Evaluator:
    """Evaluates one checkpoint; opens its model only where a benchmark needs it and keeps finished ones over a kill.

    Args:
        name: "base", "moe" or "chat"; the chat model is spoken to in ChatML.
        path: The checkpoint.
        engine: Engine that generates.
        batch_tokens: Tokens of one forward pass over options.
        scratch: Folder that survives a kill.
        judge: Judges programs in a sandbox; None where no item is a program.
    """

    def __init__(
        self, name: str, path: Path, engine: EngineConfig, batch_tokens: int, scratch: Path, judge: JudgeProgram | None
    ) -> None:
        context = read_facts(path).context_length_tokens
        self._candidate = EvaluatedModel(name, "chat" if name == "chat" else "text", context, load_tokenizer(path))
        self._path, self._engine_config, self._batch_tokens = path, engine, batch_tokens
        self._scratch, self._judge = scratch, judge
        self._model: PreTrainedModel | None = None
        self._engine: Engine | None = None

    def answer(self, spec: EvalSpec) -> list[ItemResult]:
        """The candidate's answers to one benchmark."""
        kept = self._scratch / f"{self._candidate.name}-{spec.task.name}.json"
        if kept.exists():
            return [ItemResult(**row) for row in json.loads(kept.read_text(encoding="utf-8"))]
        rows = self._answer(spec)
        temporary = kept.with_suffix(".tmp")
        temporary.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
        temporary.replace(kept)
        return rows

    def _answer(self, spec: EvalSpec) -> list[ItemResult]:
        if spec.task.method == "LL":
            if self._model is None:
                self._model = load_scorer(self._path)
            return answer_by_likelihood(self._candidate, spec, self._model, self._batch_tokens)
        if self._engine is None:
            self._engine = open_stage_engine(self._engine_config, self._scratch, self._path)
        return answer_by_generation(self._candidate, spec, self._engine, self._judge)


def build_prompt(item: EvalItem, shots: Sequence[EvalItem], form: Format) -> Prompt:
    """What a model reads: header, worked examples, question; as one user message for a chat model."""
    text = item.header + _question(item, shots)
    return [{"role": "user", "content": text}] if form == "chat" else text


def _question(item: EvalItem, shots: Sequence[EvalItem]) -> str:
    return "\n\n".join([*(shot.prompt + shot.target for shot in shots), item.prompt])


def pick_shots(item: EvalItem, pool: Sequence[EvalItem], count: int) -> list[EvalItem]:
    """The first `count` worked examples of the item's subject, or of the whole set when the subject has none."""
    own = [shot for shot in pool if shot.subject == item.subject]
    return list(own or pool)[:count]


def answer_by_likelihood(
    candidate: EvaluatedModel, spec: EvalSpec, model: PreTrainedModel, batch_tokens: int
) -> list[ItemResult]:
    """Answer multiple choice items by the log-likelihood of their options; the chat model reads plain text too.

    Args:
        candidate: Who is asked.
        spec: What is asked.
        model: The candidate's model.
        batch_tokens: Tokens of one forward pass.
    """
    prompts = [item.header + _question(item, pick_shots(item, spec.pool, spec.shots)) for item in spec.items]
    rows = [
        [split_continuation(candidate.tokenizer, prompt, option) for option in item.options]
        for item, prompt in zip(spec.items, prompts, strict=True)
    ]
    fits = [max(len(row.ids) for row in group) <= candidate.context_tokens for group in rows]
    asked = [row for group, fit in zip(rows, fits, strict=True) if fit for row in group]
    logs = iter(log_likelihoods(model, asked, batch_tokens))
    answered: list[ItemResult] = []
    for item, prompt, group, fit in zip(spec.items, prompts, rows, fits, strict=True):
        own = [round(next(logs), 4) for _ in group] if fit else []
        score = float(best_option(own, item.options, spec.task.normalise) == int(item.gold)) if fit else None
        answered.append(_answered(candidate, item, prompt, own, score))
    return answered


def best_option(logs: Sequence[float], options: Sequence[str], normalise: str) -> int:
    """Number of the likeliest option; of equal ones the first."""
    lengths = [max(1, len(option.encode())) if normalise == "bytes" else 1 for option in options]
    values = [log / length for log, length in zip(logs, lengths, strict=True)]
    return values.index(max(values))


def answer_by_generation(
    candidate: EvaluatedModel, spec: EvalSpec, engine: Engine, judge: JudgeProgram | None
) -> list[ItemResult]:
    """Answer items by generation and score what comes back; a chat model gets no worked examples.

    Args:
        candidate: Who is asked.
        spec: What is asked.
        engine: Generates with the candidate's model.
        judge: Judges programs in a sandbox; None where no item is a program.
    """
    shots, stops = (0, ()) if candidate.form == "chat" else (spec.shots, spec.task.stops)
    prompts = [build_prompt(item, pick_shots(item, spec.pool, shots), candidate.form) for item in spec.items]
    room = candidate.context_tokens - spec.sampling.max_new_tokens
    fits = [len(ids) <= room for ids in encode_prompts(candidate.tokenizer, prompts)]
    asked = [prompt for prompt, fit in zip(prompts, fits, strict=True) if fit]
    responses = iter(engine.generate(asked, spec.sampling))
    drawn = [next(responses) if fit else [] for fit in fits]
    outputs = [
        [truncate_at_stop(sample.text, stops) for sample in samples if sample.finish != "lost"] for samples in drawn
    ]
    pairs = [(item, text) for item, texts in zip(spec.items, outputs, strict=True) for text in texts]
    scores = iter(score_responses(pairs, judge))
    answered: list[ItemResult] = []
    for item, prompt, samples, texts in zip(spec.items, prompts, drawn, outputs, strict=True):
        score = fmean(next(scores) for _ in texts) if texts else None
        answered.append(_answered(candidate, item, render(prompt), texts, score, len(samples) - len(texts)))
    return answered


def summarise(model: str, spec: EvalSpec, answered: Sequence[ItemResult]) -> dict[str, Any]:
    """Figures of one benchmark on one model: score with its interval, per subject, macro average, what was left out."""
    scored = [row for row in answered if row.score is not None]
    subjects: dict[str, list[float]] = {}
    for row in scored:
        subjects.setdefault(row.subject, []).append(float(row.score or 0.0))
    share = wilson(sum(float(row.score or 0.0) for row in scored), len(scored))
    return {
        "task": spec.task.name,
        "model": model,
        "metric": spec.task.metric,
        "method": spec.task.method,
        "shots": spec.shots,
        "chance": chance_accuracy(spec.items),
        "bits_per_byte": _bits_per_byte(spec, scored),
        "score": share.value,
        "low": share.low,
        "high": share.high,
        "items": len(scored),
        "too_long": sum(row.score is None and not row.lost for row in answered),
        "lost": sum(row.lost for row in answered),
        "macro": fmean(fmean(scores) for scores in subjects.values()) if subjects else 0.0,
        "subjects": {name: {"score": fmean(scores), "items": len(scores)} for name, scores in sorted(subjects.items())},
    }


def chance_accuracy(items: Iterable[EvalItem]) -> float:
    """Score of blind guessing: one over the number of options, 0 for generated answers."""
    shares = [1 / len(item.options) if item.options else 0.0 for item in items]
    return fmean(shares) if shares else 0.0


def truncate_at_stop(text: str, stops: Sequence[str]) -> str:
    """The text up to the first stop; a stop at its very start is skipped, or every answer would be empty."""
    body = text.lstrip("\n")
    places = [place for place in (body.find(stop) for stop in stops) if place > 0]
    return text[: len(text) - len(body)] + (body[: min(places)] if places else body)


def _bits_per_byte(spec: EvalSpec, scored: Sequence[ItemResult]) -> float | None:
    """Bits the model needs per UTF-8 byte of the right endings; only where options are texts and not letters."""
    if spec.task.normalise != "bytes" or not scored:
        return None
    options = {item.id: item.options for item in spec.items}
    nats = sum(-row.output[int(row.gold)] for row in scored)
    return nats / math.log(2) / sum(len(options[row.id][int(row.gold)].encode()) for row in scored)


def _answered(
    candidate: EvaluatedModel, item: EvalItem, prompt: str, output: list[Any], score: float | None, lost: int = 0
) -> ItemResult:
    return ItemResult(
        item.task, candidate.name, item.id, item.subject, prompt, output, item.gold, score, item.text, lost
    )
