"""Find the test items that the training data contains, and score the models without them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qwenops.contracts.conversation import read_conversations, read_json_lines
from qwenops.contracts.document import iter_documents
from qwenops.evaluation.contamination.analysis import Occurrences, analyse, build_index
from qwenops.evaluation.contamination.config import ContaminationConfig
from qwenops.platform.stage.handle import Stage
from qwenops.tasks.overlap import Leak

REPORT = "contamination.json"
_PROGRESS_EVERY = 500


def run(
    config: ContaminationConfig,
    *,
    documents: Path,
    demonstrations: Path,
    synthesized: Path,
    benchmarks: Path,
    stage: Stage,
) -> None:
    """Write contamination.json and summary.md.

    Args:
        config: The rule.
        documents: Pre-training documents; their training split is read.
        demonstrations: Post-training conversations.
        synthesized: Conversations made by the synthesis stage.
        benchmarks: Output of the benchmark stage.
        stage: Where to report to.
    """
    rows = [row for _, row in read_json_lines(benchmarks / "items.jsonl")]
    items = {(row["task"], row["id"]): row["text"] for row in rows}
    index = build_index((Leak(task, item, text) for (task, item), text in items.items()), config.gram_words)
    occurrences = Occurrences()
    read: dict[str, int] = {}
    total = sum(1 for _ in iter_documents(documents, ["split"]))
    with stage.progress(total, "documents") as progress:
        read["documents"] = occurrences.search(index, "documents", _document_texts(documents, progress))
    for name, folder in (("demonstrations", demonstrations), ("synthesized", synthesized)):
        read[name] = occurrences.search(index, name, _conversation_texts(folder))
    tasks = analyse(rows, occurrences, config.examples_per_task)
    report = {"gram_words": config.gram_words, "texts_read": read, "tasks": tasks}
    (stage.out / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    _write_summary(stage.out / "summary.md", report)
    _report(stage, tasks, _metric_names(benchmarks))
    stage.records = len(items)


def _document_texts(documents: Path, progress: Any) -> Iterator[str]:
    for number, row in enumerate(iter_documents(documents, ["text", "split"]), start=1):
        if number % _PROGRESS_EVERY == 0:
            progress.advance(_PROGRESS_EVERY)
        if row["split"] == "train":
            yield row["text"]


def _conversation_texts(folder: Path) -> Iterator[str]:
    for row in read_conversations(folder, "train"):
        yield "\n".join(message["content"] for message in row.messages)


def _metric_names(benchmarks: Path) -> dict[str, str]:
    scores = json.loads((benchmarks / "scores.json").read_text(encoding="utf-8"))
    return {row["task"]: row["metric"] for row in scores}


def _report(stage: Stage, tasks: Mapping[str, Any], names: Mapping[str, str]) -> None:
    for task, facts in tasks.items():
        stage.metric(f"{task}.contaminated_share", facts["share"]["value"])
        chat = facts["models"].get("chat", {})
        for which in ("original", "clean"):
            if chat.get(which):
                stage.metric(f"{task}.{names[task]}.{which}", chat[which]["value"])
        if chat.get("delta") is not None:
            stage.metric(f"{task}.{names[task]}.delta", chat["delta"])
        if facts["contaminated"] == facts["items"]:
            stage.warn(f"{task}: every item shares a run of words with the training data; there is no clean score")


def _write_summary(path: Path, report: Mapping[str, Any]) -> None:
    lines = [
        "# Contamination",
        "",
        f"An item is contaminated when it shares {report['gram_words']} words in a row with the training data.",
        "",
        "| benchmark | items | contaminated | chat, all items | chat, clean items | delta |",
        "|---|---|---|---|---|---|",
    ]
    for task, facts in report["tasks"].items():
        chat = facts["models"].get("chat", {})
        cells = [f"{chat[w]['value']:.3f}" if chat.get(w) else "none" for w in ("original", "clean")]
        delta = f"{chat['delta']:+.3f}" if chat.get("delta") is not None else "none"
        lines.append(
            f"| {task} | {facts['items']} | {facts['share']['value']:.1%} | {cells[0]} | {cells[1]} | {delta} |"
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
