"""Benchmark the base, the mixture-of-experts and the chat model, item by item, and compare them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from qwenops.errors import RecipeError, StageError
from qwenops.evaluation.benchmarks.config import BenchmarksConfig
from qwenops.evaluation.benchmarks.report import compare, write_summary
from qwenops.evaluation.harness import (
    EvalSpec,
    Evaluator,
    ItemResult,
    summarise,
)
from qwenops.evaluation.registry import TASKS, Task
from qwenops.evaluation.scoring import JudgeProgram, pass_at_k
from qwenops.generation.engine import Sampling
from qwenops.platform.sandbox.judging import Sandbox
from qwenops.platform.stage.handle import Stage
from qwenops.tasks.evalitem import EvalItem
from qwenops.tasks.evalsets import choose_items, load_available
from qwenops.tasks.generated_sets import verifiable_items

ITEMS = "items.jsonl"
SCORES = "scores.json"
COMPARISON = "comparison.json"
_SHOT_POOL_PER_KIND = 8


def run(config: BenchmarksConfig, *, base: Path, moe: Path, chat: Path, stage: Stage) -> None:
    """Answer every benchmark with every model; write items, scores and the comparison.

    Args:
        config: Benchmarks and their sizes.
        base: Checkpoint after the long-context phase.
        moe: Checkpoint after upcycling.
        chat: Checkpoint after alignment; its figures carry the plain metric names.
        stage: Where to report to.

    Raises:
        RecipeError: an unknown benchmark, or a k of pass@k above the samples.
        StageError: not one item could be asked.
        PlatformError: a code benchmark is asked for where programs cannot be confined; no model was opened.
    """
    _check(config)
    specs, missing = _prepare(config, stage)
    judge = _open_judge(config, specs)
    answered: list[ItemResult] = []
    figures: list[dict[str, Any]] = []
    with stage.progress(3 * sum(len(spec.items) for spec in specs), "items") as progress:
        for name, path in (("base", base), ("moe", moe), ("chat", chat)):
            evaluator = Evaluator(name, path, config.engine, config.likelihood_batch_tokens, stage.scratch, judge)
            for spec in specs:
                rows = evaluator.answer(spec)
                answered += rows
                figures.append(summarise(name, spec, rows) | _pass_at(config, spec, rows))
                progress.advance(len(spec.items), f"{name} {spec.task.name}")
    _write(stage.out, answered, figures, missing)
    _report(stage, figures, missing)
    stage.records = len(answered)


def _open_judge(config: BenchmarksConfig, specs: Sequence[EvalSpec]) -> JudgeProgram | None:
    if not any(item.scorer == "python" for spec in specs for item in spec.items[:1]):
        return None
    sandbox = Sandbox.open(config.program_isolation, config.program_timeout_seconds)
    return lambda program: sandbox.judge(program).passed


def _check(config: BenchmarksConfig) -> None:
    unknown = [name for name in config.tasks if name not in TASKS]
    if unknown:
        raise RecipeError("unknown benchmark", expected=", ".join(sorted(TASKS)), found=", ".join(unknown))
    if max(config.pass_k) > config.code_samples:
        raise RecipeError(
            "pass@k needs k samples",
            expected=f"k <= code_samples = {config.code_samples}",
            found=config.pass_k,
            action="raise code_samples or lower pass_k",
        )


def _prepare(config: BenchmarksConfig, stage: Stage) -> tuple[list[EvalSpec], dict[str, str]]:
    cache = stage.context.cache_folder("evalsets")
    names = [name for name in config.tasks if name != "verifiable"]
    available = load_available(names, config.folder, cache, shots=config.max_shots > 0)
    specs: list[EvalSpec] = []
    for name in config.tasks:
        task = TASKS[name]
        if name == "verifiable":
            items = _verifiable(config, stage.seed, "heldout", config.verifiable_per_kind)
            pool = _verifiable(config, stage.seed, "train", _SHOT_POOL_PER_KIND)
        elif name in available.items:
            limit = 0 if name == "continuation" else config.limit_items
            items = choose_items(available.items[name], limit, stage.seed)
            pool = available.shots[name]
        else:
            continue
        specs.append(
            EvalSpec(task, items, pool, min(task.shots, config.max_shots), _sampling(config, task, stage.seed))
        )
    return specs, available.missing


def _verifiable(config: BenchmarksConfig, seed: int, split: str, count: int) -> list[EvalItem]:
    side = "heldout" if split == "heldout" else "train"
    return verifiable_items(config.verifiable_kinds, count, config.verifiable_digits, seed, side)


def _sampling(config: BenchmarksConfig, task: Task, seed: int) -> Sampling:
    tokens = min(task.answer_tokens, config.max_new_tokens)
    samples = config.code_samples if task.metric == "pass_at_1" else 1
    return Sampling(
        temperature=config.code_temperature if samples > 1 else 0.0, max_new_tokens=tokens, n=samples, seed=seed
    )


def _pass_at(config: BenchmarksConfig, spec: EvalSpec, rows: Sequence[ItemResult]) -> dict[str, Any]:
    """pass@k for the code benchmarks beside pass@1, over the items of which at least k samples came.

    An item's score is the share of its samples that passed.
    """
    if spec.task.metric != "pass_at_1":
        return {}
    drawn = [(len(row.output), round(row.score * len(row.output))) for row in rows if row.score is not None]
    shares = {k: [pass_at_k(n, right, k) for n, right in drawn if n >= k] for k in config.pass_k}
    return {f"pass_at_{k}": fmean(own) for k, own in shares.items() if own}


def _write(
    out: Path, answered: Sequence[ItemResult], figures: Sequence[dict[str, Any]], missing: dict[str, str]
) -> None:
    with (out / ITEMS).open("w", encoding="utf-8") as stream:
        for row in answered:
            stream.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
    (out / SCORES).write_text(json.dumps(figures, indent=1, ensure_ascii=False), encoding="utf-8")
    (out / COMPARISON).write_text(json.dumps(compare(answered), indent=1), encoding="utf-8")
    write_summary(out / "summary.md", figures, missing)


def _report(stage: Stage, figures: Sequence[dict[str, Any]], missing: dict[str, str]) -> None:
    for sentence in missing.values():
        stage.warn(sentence)
    stage.metric("tasks.missing", len(missing))
    lost = sum(row["lost"] for row in figures)
    stage.metric("answers.lost", lost)
    if lost:
        stage.warn(f"{lost} answers were lost by the endpoint and were not scored")
    if not any(row["items"] for row in figures):
        raise StageError(
            "no benchmark item could be asked",
            expected="at least one item that fits the model's context and is answered",
            found=f"{sum(row['too_long'] for row in figures)} too long, {lost} answers lost, "
            f"{len(missing)} benchmarks without files",
            action="give a folder of official files, or lower max_shots and max_new_tokens",
        )
    for row in figures:
        suffix = "" if row["model"] == "chat" else f".{row['model']}"
        if row["too_long"]:
            stage.warn(
                f"{row['task']}: {row['too_long']} of {row['too_long'] + row['items']} prompts do not fit the context "
                f"of the {row['model']} model and were not scored; lower max_shots or max_new_tokens"
            )
        if row["items"]:
            stage.metric(f"{row['task']}.{row['metric']}{suffix}", row["score"])
            stage.metric(f"{row['task']}.macro{suffix}", row["macro"])
            stage.metric(f"{row['task']}.low{suffix}", row["low"])
            stage.metric(f"{row['task']}.chance{suffix}", row["chance"])
        if row["bits_per_byte"] is not None:
            stage.metric(f"{row['task']}.bits_per_byte{suffix}", row["bits_per_byte"])
        stage.metric(f"{row['task']}.items{suffix}", row["items"])
        stage.metric(f"{row['task']}.too_long{suffix}", row["too_long"])
        for key in row:
            if key.startswith("pass_at_") and key != row["metric"]:
                stage.metric(f"{row['task']}.{key}{suffix}", row[key])
