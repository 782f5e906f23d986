"""Gather instructions, tag them and build the ontology of their tags."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

from qwenops.contracts.conversation import Conversation, write_conversations
from qwenops.instructions.cleaning import Cleaner
from qwenops.instructions.ontology.config import OntologyConfig
from qwenops.instructions.ontology.instructions import (
    document_instructions,
    safety_instructions,
    verifiable_instructions,
)
from qwenops.instructions.ontology.normalise import Ontology, build_ontology
from qwenops.instructions.ontology.tagger import LexicalTagger, LlmTagger, Tagger
from qwenops.platform.engines import open_stage_engine
from qwenops.platform.stage.handle import Stage

_COLUMNS = ["id", "text", "domain", "lang", "license", "split"]
_EXAMPLES = 3


def run(config: OntologyConfig, *, documents: Path, stage: Stage) -> None:
    """Write `demonstrations.jsonl` (tagged instructions), `ontology.json`, `ontology.csv` and `summary.md`."""
    rows = [
        *verifiable_instructions(config, stage.seed),
        *document_instructions(_train_documents(documents), config),
        *(safety_instructions() if config.safety_prompts == "include" else ()),
    ]
    unique = list({row.id: row for row in rows}.values())
    cleaner = Cleaner(config.decontamination, stage)
    clean = cleaner.conversations(unique)
    tagger = _open_tagger(config, stage.scratch)
    ontology = build_ontology(tagger.tag(clean), config)
    tagged = [replace(row, tags=tags) for row, tags in zip(clean, ontology.rows, strict=True)]
    write_conversations(stage.out, tagged)
    _write_ontology(ontology, tagger.name, tagged, stage.out)
    for step, number in ontology.steps.items():
        stage.metric(f"tags.{step}", number)
    for source in sorted({row.source for row in tagged}):
        stage.metric(f"rows.{source}", sum(row.source == source for row in tagged))
    if isinstance(tagger, LlmTagger):
        _report_answers(tagger.answers, stage)
    else:
        stage.warn("tags come from the lexical stand-in, not from a language model")
    cleaner.report()
    dropped = {"repeated": len(rows) - len(unique), **cleaner.dropped}
    stage.count(read=len(rows), kept=len(clean), dropped=dropped)


def _train_documents(documents: Path) -> Iterator[dict[str, Any]]:
    """Training documents in the order of their ids' hashes as written: sorted by id, so the parts do not matter."""
    table = parquet.read_table(documents / "documents", columns=_COLUMNS, filters=[("split", "=", "train")])
    yield from table.sort_by("id").to_pylist()


def _open_tagger(config: OntologyConfig, scratch: Path) -> Tagger:
    if config.tagger == "lexical":
        return LexicalTagger(config.max_tags_per_instruction)
    engine = open_stage_engine(config.engine, scratch)
    return LlmTagger(engine, config.max_tags_per_instruction)


def _report_answers(answers: Mapping[str, int], stage: Stage) -> None:
    for which, number in answers.items():
        stage.metric(f"answers.{which}", number)
    if useless := answers.get("lost", 0) + answers.get("not_understood", 0):
        stage.warn(
            f"{useless} of {answers['all']} instructions have no tags: their answers were lost or not understood"
        )


def _write_ontology(ontology: Ontology, tagger: str, rows: list[Conversation], out: Path) -> None:
    """`ontology.json` for programs, `ontology.csv` for the people who refine it, `summary.md` for a first look."""
    examples: dict[str, list[str]] = {tag: [] for tag in ontology.counts}
    for row in rows:
        for tag in row.tags:
            if len(examples[tag]) < _EXAMPLES:
                examples[tag].append(row.instruction[:120])
    tags = [
        {"tag": tag, "count": count, "merged_from": ontology.members[tag], "examples": examples[tag]}
        for tag, count in ontology.counts.items()
    ]
    plain = {"version": 1, "tagger": tagger, "steps": ontology.steps, "tags": tags}
    (out / "ontology.json").write_text(json.dumps(plain, ensure_ascii=False, indent=1), encoding="utf-8")
    lines = ["tag\tcount\taction\tinto\tmerged_from"]
    lines += [f"{t['tag']}\t{t['count']}\t\t\t{', '.join(t['merged_from'])}" for t in tags]
    (out / "ontology.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    steps = " -> ".join(f"{name} {number}" for name, number in ontology.steps.items())
    top = "\n".join(f"- {t['tag']}: {t['count']}" for t in tags[:20])
    (out / "summary.md").write_text(f"# Ontology\n\nTagger: {tagger}. Tags: {steps}.\n\n{top}\n", encoding="utf-8")
