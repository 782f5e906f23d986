"""The instructions that enter the pipeline: verifiable tasks, tasks made from documents, safety prompts.

A document gives an instruction whose right answer is already in it (continue the text, name the title), so that the
answer is the author's and nothing is invented.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from qwenops.contracts.conversation import Conversation, Split, answer, ask, conversation_id
from qwenops.instructions.ontology.config import OntologyConfig
from qwenops.tasks.safety_prompts import load as load_safety_prompts
from qwenops.tasks.verifiable import generate

_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s*")
_MIN_CHARACTERS = 12
_LEADS = {
    "en": "Continue: {}",
    "zh": "续写：{}",
    "es": "Continúa: {}",
    "fr": "Continue : {}",
    "de": "Setze fort: {}",
    "pt": "Continue: {}",
}


def verifiable_instructions(config: OntologyConfig, seed: int) -> list[Conversation]:
    """Training and held-out tasks of every kind."""
    sizes: dict[Split, int] = {"train": config.tasks_per_kind, "heldout": config.heldout_per_kind}
    rows: list[Conversation] = []
    for kind in config.task_kinds:
        for split, n in sizes.items():
            rows += generate(kind, n, seed, split, min_digits=config.min_digits, max_digits=config.max_digits)
    return rows


def document_instructions(documents: Iterable[Mapping[str, Any]], config: OntologyConfig) -> list[Conversation]:
    """One continuation task from each document that has two usable sentences, up to the configured number."""
    rows: list[Conversation] = []
    for document in documents:
        if len(rows) >= config.document_instructions:
            break
        row = _continuation(document, config.max_passage_characters)
        if row is not None:
            rows.append(row)
    return rows


def safety_instructions() -> list[Conversation]:
    """The training safety prompts, unanswered; the held-out ones never enter the pipeline's data."""
    return [
        Conversation(
            id=prompt.id,
            messages=ask(prompt.text),
            tags=(prompt.category,),
            source="safety",
            lang=prompt.language,
            provenance={"category": prompt.category},
        )
        for prompt in load_safety_prompts("train")
    ]


def _continuation(document: Mapping[str, Any], max_characters: int) -> Conversation | None:
    text = " ".join(document["text"][: 8 * max_characters].split())
    sentences = [part for part in _SENTENCE_END.split(text) if len(part) >= _MIN_CHARACTERS]
    if len(sentences) < 3:
        return None
    # The last piece may have been cut; the first is often a headline or a licence line.
    middle = (len(sentences) - 1) // 2
    first, second = sentences[middle - 1 : middle + 1] if middle else sentences[:2]
    if len(first) + len(second) > max_characters:
        return None
    lead = _LEADS.get(document["lang"], _LEADS["en"])
    return Conversation(
        id=conversation_id("document", document["id"]),
        messages=answer(ask(lead.format(first)), second),
        tags=(document["domain"],),
        source="documents",
        lang=document["lang"],
        provenance={"document": document["id"], "license": document["license"]},
    )
