"""Which test items share a 13-gram with the training data, and how the models score without them.

Strict, as in section 5.2.6: one shared run of 13 words contaminates an item, with no condition on the longest common
subsequence. The report notes that most hits are common expressions and no leaks, so the figures to read are the share
and the difference between all and clean items together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qwenops.evaluation.statistics import wilson
from qwenops.tasks.overlap import Leak, OverlapIndex


@dataclass
class Occurrences:
    """Where each contaminated item was seen: (task, item) to source to number of texts."""

    places: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict[tuple[str, str], dict[str, int]])

    def search(self, index: OverlapIndex, source: str, texts: Iterable[str]) -> int:
        """Look for every indexed item in `texts`; returns how many texts were read."""
        count = 0
        for text in texts:
            count += 1
            for match in index.matches(text):
                own = self.places.setdefault((match.task, match.item), {})
                own[source] = own.get(source, 0) + 1
        return count


def build_index(items: Iterable[Leak], gram_words: int) -> OverlapIndex:
    """Index of whole items that finds any shared run of `gram_words` words: what shares one with a part shares it."""
    return OverlapIndex(items, length=gram_words, rule="ngram")


def analyse(rows: Sequence[Mapping[str, Any]], occurrences: Occurrences, examples: int) -> dict[str, Any]:
    """Contaminated share and clean scores per benchmark.

    Args:
        rows: `items.jsonl` of the benchmark stage: task, model, id, score, text.
        occurrences: What was found in the training data.
        examples: Contaminated items to name per task.

    Returns:
        Task to {"items", "contaminated", "share", "sources", "examples", "models"}; a model has "original", "clean"
        (None when no clean item is left) with intervals, and "delta" = clean - original.
    """
    tasks: dict[str, Any] = {}
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        ids = list(dict.fromkeys(row["id"] for row in own))
        dirty = [item for item in ids if (task, item) in occurrences.places]
        share = wilson(len(dirty), len(ids))
        tasks[task] = {
            "items": len(ids),
            "contaminated": len(dirty),
            "share": share.as_plain(),
            "sources": _by_source(occurrences, task, dirty),
            "examples": [{"id": item, "seen_in": occurrences.places[task, item]} for item in dirty[:examples]],
            "models": {
                model: _scores([row for row in own if row["model"] == model], set(dirty))
                for model in dict.fromkeys(row["model"] for row in own)
            },
        }
    return tasks


def _by_source(occurrences: Occurrences, task: str, dirty: Sequence[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in dirty:
        for source in occurrences.places[task, item]:
            counts[source] = counts.get(source, 0) + 1
    return counts


def _scores(rows: Sequence[Mapping[str, Any]], dirty: set[str]) -> dict[str, Any]:
    """Original and clean score of one model; items it was not asked (score None) count in neither."""
    scored = [row for row in rows if row["score"] is not None]
    clean = [row for row in scored if row["id"] not in dirty]
    original = wilson(sum(row["score"] for row in scored), len(scored)) if scored else None
    rest = wilson(sum(row["score"] for row in clean), len(clean)) if clean else None
    return {
        "original": original.as_plain() if original else None,
        "clean": rest.as_plain() if rest else None,
        "delta": rest.value - original.value if original and rest else None,
    }
