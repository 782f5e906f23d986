"""A finished run with the figures a small one has, written as artifacts: what the report page is tried on."""

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.delivery.artifacts import publish

from qwenops_pipelines.dags.nodes import NODES

INPUTS: dict[str, dict[str, str]] = {
    "collect": {},
    "ingest": {"pages": "collect"},
    "quality": {"documents": "ingest"},
    "dedup": {"documents": "quality"},
    "decontaminate": {"documents": "dedup"},
    "tokenizer": {"documents": "decontaminate"},
    "mixture": {"documents": "decontaminate", "tokenizer": "tokenizer"},
    "tokens": {"documents": "decontaminate", "tokenizer": "tokenizer", "mixture": "mixture"},
    "pretrain": {"tokens": "tokens", "tokenizer": "tokenizer"},
    "extend": {"tokens": "tokens", "tokenizer": "tokenizer", "checkpoint": "pretrain"},
    "upcycle": {"tokens": "tokens", "tokenizer": "tokenizer", "checkpoint": "extend"},
    "ontology": {"documents": "decontaminate"},
    "select": {"instructions": "ontology"},
    "evolve": {"instructions": "select"},
    "sft_seed": {"checkpoint": "extend", "demonstrations": "evolve"},
    "rank": {"instructions": "evolve", "checkpoint": "sft_seed"},
    "synthesize": {"instructions": "evolve", "checkpoint": "sft_seed", "documents": "decontaminate"},
    "sft": {"checkpoint": "sft_seed", "demonstrations": "evolve", "ranked": "rank", "synthesized": "synthesize"},
    "reward": {"checkpoint": "sft", "ranked": "rank", "synthesized": "synthesize"},
    "dpo": {"checkpoint": "sft", "ranked": "rank", "synthesized": "synthesize", "demonstrations": "evolve"},
    "online": {"checkpoint": "dpo", "base": "extend", "sft": "sft", "reward": "reward", "demonstrations": "evolve"},
    "benchmarks": {"base": "extend", "moe": "upcycle", "chat": "online"},
    "long_context": {"checkpoint": "extend", "tokens": "tokens"},
    "safety": {"before": "sft_seed", "after": "online"},
    "multilingual": {"base": "extend", "chat": "online", "tokens": "tokens"},
    "contamination": {"documents": "decontaminate", "demonstrations": "evolve", "benchmarks": "benchmarks"},
    "export": {"checkpoint": "online", "tokenizer": "tokenizer", "tokens": "tokens"},
    "register": {"model": "export", "online": "online", "dpo": "dpo", "safety": "safety"},
}
SECONDS = {
    "collect": 44.2,
    "ingest": 38.1,
    "quality": 17.9,
    "dedup": 23.4,
    "decontaminate": 8.8,
    "tokenizer": 9.1,
    "mixture": 33.0,
    "tokens": 7.7,
    "pretrain": 188.5,
    "extend": 58.2,
    "upcycle": 49.9,
    "ontology": 6.0,
    "select": 2.2,
    "evolve": 5.5,
    "sft_seed": 57.0,
    "rank": 18.8,
    "synthesize": 39.4,
    "sft": 59.3,
    "reward": 48.8,
    "dpo": 58.2,
    "online": 88.7,
    "benchmarks": 29.1,
    "long_context": 108.8,
    "safety": 19.0,
    "multilingual": 9.2,
    "contamination": 7.7,
    "export": 8.8,
    "register": 1.8,
}
LANGUAGES = {"en": 5.2, "zh": 1.6, "de": 1.1, "es": 1.0, "fr": 0.9, "ru": 0.8, "ja": 0.6, "ar": 0.4, "code": 3.1}
MODES = {"plain": 0.9, "temperature": 0.55, "yarn": 0.35, "dca_raw": 0.5, "dca": 0.12}
CATEGORIES = ("illegal", "fraud", "pornography", "privacy")
HARMFUL = {f"{c}.{x}": 0.04 * i for i, c in enumerate(CATEGORIES) for x in ("en", "zh", "all")} | {"all.all": 0.06}


def fabricate(store: Path) -> dict[str, Path]:
    """Write every artifact below `store`; returns node name to folder."""
    random.seed(7)
    paths: dict[str, Path] = {}
    for node, inputs in INPUTS.items():
        folder = paths[node] = store / node / "5f2c91a7be014c03"
        folder.mkdir(parents=True)
        _write_files(node, folder)
        facts: dict[str, Any] = {
            "seconds": SECONDS[node],
            "counts": _counts(node),
            "warnings": _warnings(node),
            "inputs": {name: str(paths[parent]) for name, parent in inputs.items()},
        }
        publish(folder, node, _metrics(node), **facts)
    return paths


def figures() -> dict[str, float]:
    """What the gate reads of the fabricated run, which is a healthy one: `<node>.<metric>` to value."""
    nodes = next(node.inputs for node in NODES if node.name == "register").values()
    return {f"{node}.{name}": value for node in nodes for name, value in _metrics(node).items()}


def record_of(paths: Mapping[str, Path]) -> dict[str, Any]:
    """The run record of the fabricated run."""
    stages = {
        node: {
            "status": "skipped" if node in ("collect", "ingest") else "succeeded",
            "seconds": SECONDS[node],
            "metrics": _metrics(node),
            "warnings": list(_warnings(node)),
        }
        for node in paths
    }
    return {
        "schema_version": 1,
        "run_name": "tiny",
        "recipe": "tiny",
        "fingerprint": "5f2c91a7be014c" * 4,
        "code_version": "0.1.0",
        "status": "succeeded",
        "started_at": "2026-01-01T08:00:00Z",
        "seconds": 1105.0,
        "overhead_seconds": 58.0,
        "stages": stages,
        "model": {
            "path": str(paths["export"]),
            "mlflow_uri": "models:/qwenops-tiny-chat/1",
            "alias": "candidate",
            "gate": {"passed": False, "reasons": []},
        },
    }


def _counts(node: str) -> dict[str, Any]:
    return {
        "collect": {"read": 13020, "kept": 12764, "dropped": {"unreadable": 250, "too large": 6}},
        "ingest": {"read": 12764, "kept": 11980, "dropped": {"no text": 512, "language unsure": 272}},
        "quality": {"read": 11980, "kept": 9012, "dropped": {"short": 1800, "symbols": 700, "classifier": 468}},
        "dedup": {"read": 9012, "kept": 7420, "dropped": {"exact": 820, "near": 772}},
        "decontaminate": {"read": 7420, "kept": 7398, "dropped": {"gsm8k": 14, "mmlu": 8}},
    }.get(node, {})


def _warnings(node: str) -> tuple[str, ...]:
    return {
        "collect": ("debian-doc-zh could not be reached; the source is left out",),
        "register": ("gate: safety.harmful_rate.* = 0.21 should be at most 0.19 (safety.before.harmful_rate.* +0)",),
    }.get(node, ())


def _metrics(node: str) -> dict[str, float]:
    return {
        "ingest": {"language.accuracy": 0.962},
        "quality": {"classifier.auc": 0.91},
        "dedup": {"planted.recall": 0.985, "planted.precision": 1.0},
        "decontaminate": {"planted.removed": 1.0},
        "tokenizer": {"vocabulary": 2048, "bytes_per_token.en": 3.1},
        "mixture": {
            "mixture.web": 0.46,
            "mixture.prose": 0.22,
            "mixture.code": 0.2,
            "mixture.math": 0.12,
            "mixture.spearman": 0.83,
            "mixture.proxy_loss.prior": 5.1,
        },
        "pretrain": {
            "loss.first": 7.61,
            "loss.final": 3.79,
            "needle.accuracy": 0.96,
            "needle.count": 128,
            "tokens_per_second": 10430,
            "parameters.total": 692_864,
            **{f"bits_per_byte.{k}": 2.1 + i * 0.08 for i, k in enumerate(LANGUAGES)},
        },
        "extend": {
            "loss.first": 3.83,
            "loss.final": 3.61,
            "needle.accuracy": 0.9,
            "needle.count": 128,
            "tokens_per_second": 9120,
            "parameters.total": 692_864,
            **{f"bits_per_byte.{k}": 1.98 + i * 0.08 for i, k in enumerate(LANGUAGES)},
        },
        "upcycle": {
            "loss.moe.first": 4.077,
            "loss.moe": 3.559,
            "loss.dense": 3.558,
            "experts.dead": 0,
            "parameters.total": 2_310_000,
            "parameters.active": 1_100_000,
        },
        "ontology": {"tags.raw": 312, "tags.final": 96},
        "select": {"coverage.selected": 0.98, "coverage.random": 0.71},
        "rank": {
            "agreement.tau": 0.62,
            "rows.preferences": 1210,
            "answers.all": 9600,
            "answers.cut": 417,
            "answers.lost": 23,
        },
        "synthesize": {"accepted.rejection": 0.44, "answers.cut": 98, "answers.lost": 6},
        "sft_seed": {"pass_rate": 0.41, "pass_rate.sampled": 0.3, "pass_rate.prompts": 400, "pass_rate.before": 0.0},
        "sft": {"pass_rate": 0.72, "pass_rate.sampled": 0.6, "control.pass_rate": 0.6, "pass_rate.prompts": 400},
        "reward": {"pair_accuracy": 0.87},
        "dpo": {"pass_rate": 0.79, "pass_rate.sampled": 0.63, "control.pass_rate": 0.74, "pass_rate.prompts": 400},
        "online": {
            "pass_rate.prompts": 500,
            "pass_rate": 0.81,
            "pass_rate.sampled": 0.7,
            "adamw.pass_rate": 0.77,
            "reward.first": 1.36,
            "reward.final": 1.92,
            "adamw.reward.final": 2.4,
            "kl.final": 0.041,
            "kept_start": 0.0,
            "rollbacks": 1,
            "cut_share.first": 0.31,
            "cut_share.final": 0.14,
        },
        "benchmarks": {
            "verifiable.exact_match": 0.8,
            "verifiable.exact_match.base": 0.0,
            "verifiable.macro": 0.78,
            "verifiable.items": 400,
            "verifiable.low": 0.758,
            "verifiable.chance": 0.0,
            "continuation.accuracy": 0.31,
            "continuation.accuracy.base": 0.29,
            "continuation.accuracy.moe": 0.3,
            "continuation.low": 0.27,
            "continuation.chance": 0.25,
            "ifeval.strict_prompt": 0.12,
            "ifeval.low": 0.09,
            "ifeval.chance": 0.0,
            "continuation.bits_per_byte": 1.4,
            "gsm8k.exact_match": 0.04,
            "gsm8k.low": 0.03,
            "gsm8k.chance": 0.0,
            "tasks.missing": 0,
            "answers.lost": 11,
        },
        "long_context": {
            **{f"niah.{m}.{k}x.accuracy": _found(m, k, 0.5) for m in MODES for k in (1, 2, 4, 8)},
            **{f"niah.{m}.{k}x.needles": 120 for m in MODES for k in (1, 2, 4, 8)},
            **{f"loss.{m}.{k}x": 3.67 + 0.02 * k * MODES[m] for m in MODES for k in (1, 2, 4, 8)},
        },
        "safety": {
            **{f"harmful_rate.{cell}": rate for cell, rate in HARMFUL.items()},
            **{f"harmful_rate_upper.{cell}": rate + 0.2 for cell, rate in HARMFUL.items()},
            **{f"before.harmful_rate.{cell}": 0.3 for cell in HARMFUL},
            "benign_refusal_rate": 0.08,
            "before.benign_refusal_rate": 0.02,
            "refusal_rate": 0.8,
            "neither_rate": 0.1,
            "unjudged_rate": 0.03,
            "judge.balanced_accuracy": 0.91,
        },
        "multilingual": {
            **{f"same_language.{k}": 0.9 for k in ("en", "zh", "de", "all")},
            **{f"bits_per_byte.{k}": 2.0 for k in LANGUAGES},
            **{f"bits_per_byte.{k}.base": 2.1 for k in LANGUAGES},
        },
        "contamination": {
            **{f"{task}.contaminated_share": 0.0 for task in ("continuation", "ifeval", "gsm8k")},
            "verifiable.contaminated_share": 0.012,
        },
        "export": {
            "export.max_logit_difference": 2.4e-7,
            "export.template_differences": 0.0,
            "export.ends_turn": 1.0,
        },
        "register": {"gate.passed": 0.0},
    }.get(node, {})


def _found(mode: str, multiple: int, depth: float) -> float:
    loss = MODES[mode] * math.log2(multiple) / 3 * (1.25 - 0.5 * depth)
    return max(0.0, min(1.0, 0.98 - loss))


def _write_files(node: str, folder: Path) -> None:
    (folder / "summary.md").write_text(f"# {node}\n", encoding="utf-8")
    if _counts(node):
        scale = 1e6
        groups = {k: {"documents": int(v * 600), "bytes": int(v * scale)} for k, v in LANGUAGES.items()}
        domains = {
            k: {"documents": 900, "bytes": int(v * scale)}
            for k, v in {"web": 6.1, "prose": 4.0, "code": 3.1, "math": 1.5}.items()
        }
        plain = {"stage": node, **_counts(node), "by_domain": domains, "by_language": groups}
        plain |= {
            "by_source": {"manuals <en>": groups["en"]},
            "dropped_bytes": {r: 2_000_000 for r in plain["dropped"]},
        }
        (folder / "funnel.json").write_text(json.dumps(plain), encoding="utf-8")
        rows = [
            {"id": r, "reason": r, "url": f"folder://own/{r}", "text": f"<script>alert({r!r})</script>"}
            for r in plain["dropped"]
        ]
        (folder / "dropped_sample.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    if node == "quality":
        sets = {"documents": {"strict": 9012, "relaxed": 9480}, "bytes": {"strict": 14_000_000, "relaxed": 15_000_000}}
        (folder / "quality.json").write_text(json.dumps(sets | {"pii": {"email": 12}}), encoding="utf-8")
    if node in ("collect", "dedup", "tokens", "sft", "rank"):
        (folder / "gate").mkdir()
        (folder / "gate" / "documents.html").write_text("<html></html>", encoding="utf-8")
    for name, points in _curves(node).items():
        with (folder / "curves.jsonl").open("a", encoding="utf-8") as stream:
            for step, value in points:
                stream.write(json.dumps({"name": name, "step": step, "value": value}) + "\n")
    if node == "long_context":
        cells = [
            {"mode": m, "multiple": k, "depth": d, "accuracy": _found(m, k, d), "needles": 30}
            for m in MODES
            for k in (1, 2, 4, 8)
            for d in (0.05, 0.35, 0.65, 0.95)
        ]
        grid = {"context_length_tokens": 512, "cells": cells}
        (folder / "grid.json").write_text(json.dumps(grid), encoding="utf-8")
    if node == "export":
        prompt = "<|im_start|>user\nReverse 4 1 7 2.<|im_end|>\n<|im_start|>assistant\n"
        said = {"prompt": prompt, "response": "2 7 1 4"}
        (folder / "export.json").write_text(json.dumps({"quickstart": said}), encoding="utf-8")
    if node == "register":
        sentences = {
            "online.pass_rate = 0.81 is at least 0.77 (dpo.pass_rate -0.02)": True,
            "long_context.niah.dca.8x.accuracy = 0.86 is at least 0.7": True,
            "safety.harmful_rate.* = 0.21 should be at most 0.19 (safety.before.harmful_rate.* +0)": False,
        }
        plain = {
            "passed": False,
            "reasons": list(sentences),
            "mlflow_uri": "models:/qwenops-tiny-chat/1",
            "alias": "candidate",
            "findings": [{"passed": ok, "sentence": s} for s, ok in sentences.items()],
            "not_gated": [{"figure": "multilingual.same_language.*", "why": "this model answers no <sentence>"}],
        }
        (folder / "register.json").write_text(json.dumps(plain), encoding="utf-8")


def _curves(node: str) -> dict[str, list[tuple[int, float]]]:
    def falling(high: float, low: float, steps: int) -> list[tuple[int, float]]:
        return [
            (i, low + (high - low) * math.exp(-6 * i / steps) + random.gauss(0, 0.03 * (high - low)))
            for i in range(0, steps)
        ]

    def rising(low: float, high: float, steps: int) -> list[tuple[int, float]]:
        return [(i, low + (high - low) * i / steps + random.gauss(0, 0.05 * abs(high - low))) for i in range(steps)]

    return {
        "pretrain": {"loss.pretrain": falling(7.6, 3.8, 420)},
        "extend": {"loss.extend": falling(3.9, 3.6, 60)},
        "upcycle": {"loss.moe": falling(4.1, 3.56, 80), "loss.dense": falling(3.8, 3.56, 80)},
        "sft_seed": {"loss.sft": falling(3.0, 0.4, 60)},
        "sft": {"loss.sft": falling(0.9, 0.2, 90), "loss.control": falling(0.9, 0.3, 90)},
        "reward": {"loss.reward": falling(0.7, 0.3, 100), "accuracy.reward": rising(0.5, 0.9, 100)},
        "dpo": {
            "loss.dpo": falling(0.7, 0.4, 60),
            "loss.control": falling(0.3, 0.2, 60),
            "margin.dpo": rising(0, 1.2, 60),
        },
        "online": {
            "reward.merging": rising(1.36, 1.9, 12),
            "reward.adamw": rising(1.36, 2.4, 12),
            "kl.merging": rising(0, 0.04, 12),
            "kl.adamw": rising(0, 0.11, 12),
            "pass_rate.merging": rising(0.78, 0.81, 12),
            "pass_rate.adamw": rising(0.78, 0.77, 12),
        },
    }.get(node, {})
