"""Comparison of the models on the same items, and the table a person reads first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qwenops.evaluation.harness import ItemResult
from qwenops.evaluation.statistics import mcnemar_p

# (new, old): the mixture of experts against the dense model it was made from, the chat model against its base.
PAIRS = (("moe", "base"), ("chat", "base"))
_RIGHT = 0.5


def compare(answered: Sequence[ItemResult]) -> dict[str, dict[str, Any]]:
    """Paired comparison per benchmark and pair of models, over the items both were asked.

    Returns:
        Task to "new-old" to {"difference", "p", "items", "only_new", "only_old"}; p is McNemar's exact test.
    """
    scores: dict[tuple[str, str], dict[str, float]] = {}
    for row in answered:
        if row.score is not None:
            scores.setdefault((row.task, row.model), {})[row.id] = row.score
    tasks = sorted({task for task, _ in scores})
    return {
        task: {
            f"{new}-{old}": _paired(scores[task, new], scores[task, old])
            for new, old in PAIRS
            if (task, new) in scores and (task, old) in scores
        }
        for task in tasks
    }


def write_summary(path: Path, figures: Sequence[Mapping[str, Any]], missing: Mapping[str, str]) -> None:
    """Write `summary.md`: one line per benchmark, one column per model."""
    models = list(dict.fromkeys(row["model"] for row in figures))
    lines = ["# Benchmarks", "", f"| benchmark | metric | items | chance | {' | '.join(models)} |"]
    lines.append("|---" * (4 + len(models)) + "|")
    for task in dict.fromkeys(row["task"] for row in figures):
        own = {row["model"]: row for row in figures if row["task"] == task}
        first = next(iter(own.values()))
        cells = [f"{row['score']:.3f} ({row['low']:.3f} to {row['high']:.3f})" for row in own.values()]
        lines.append(f"| {task} | {first['metric']} | {first['items']} | {first['chance']:.2f} | {' | '.join(cells)} |")
    lines += ["", "Intervals are 95 % Wilson. A score at chance says that the model cannot do the task."]
    lines += [f"- {sentence}" for sentence in missing.values()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _paired(new: Mapping[str, float], old: Mapping[str, float]) -> dict[str, Any]:
    common = sorted(new.keys() & old.keys())
    right_new, right_old = [new[i] > _RIGHT for i in common], [old[i] > _RIGHT for i in common]
    return {
        "difference": sum(new[i] - old[i] for i in common) / max(len(common), 1),
        "p": mcnemar_p(right_new, right_old),
        "items": len(common),
        "only_new": sum(a and not b for a, b in zip(right_new, right_old, strict=True)),
        "only_old": sum(b and not a for a, b in zip(right_new, right_old, strict=True)),
    }
