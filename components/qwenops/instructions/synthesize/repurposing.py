"""Data repurposing (report 4.1.2): a good text becomes the response; only the instruction is written.

Three levels of detail per passage: a line, an outline, a brief. The response is the author's text, letter for letter.
The report also builds role play from profiles; that needs a language model to write questions and answers in a role,
and is not done here.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qwenops.contracts.conversation import Conversation, answer, ask, conversation_id
from qwenops.generation.engine import Engine, Sampling, count_unfinished
from qwenops.instructions.synthesize.config import SynthesizeConfig
from qwenops.instructions.synthesize.result import SynthesisResult

STRATEGY = "repurposing"
LEVELS = ("line", "outline", "brief")
_MIN_CHARACTERS = 60
_WORD = re.compile(r"[^\W\d_]{4,}")
_HAN_WORD = re.compile(r"[\u3400-\u9fff]{2}")
_TEMPLATES = {
    "en": ("Write about {0}.", "Write {n} sentences about {0} and {1}.", "Write about {0}, {1}, {2}. Begin: {start}"),
    "zh": ("写写{0}。", "写{n}句话，谈{0}和{1}。", "写{0}、{1}和{2}。开头：“{start}”"),
    "es": ("Escribe sobre {0}.", "Escribe {n} frases sobre {0} y {1}.", "Escribe de {0}, {1} y {2}. Empieza: {start}"),
    "fr": ("Écris sur {0}.", "Écris {n} phrases sur {0} et {1}.", "Écris sur {0}, {1} et {2}. Commence : {start}"),
    "de": ("Schreib über {0}.", "Schreib {n} Sätze über {0} und {1}.", "Schreib über {0}, {1}, {2}. Anfang: {start}"),
}
_BRIEF_PROMPT = """Write the instruction that the text below would be a perfect answer to. Level of detail: {level} \
(line: one short sentence; outline: the points to cover; brief: everything a writer needs). Reply with the instruction.

{passage}"""


def find_passages(documents: Iterable[Mapping[str, Any]], number: int, max_characters: int) -> list[dict[str, Any]]:
    """One passage (a whole paragraph) from each prose document that has one of the right length."""
    found: list[dict[str, Any]] = []
    for document in documents:
        if len(found) == number:
            break
        passage = next(
            (
                part.strip()
                for part in document["text"].split("\n\n")
                if _MIN_CHARACTERS <= len(part.strip()) <= max_characters and _reads_as_prose(part)
            ),
            None,
        )
        if passage is not None:
            found.append({**document, "text": passage})
    return found


def repurpose(
    passages: Sequence[Mapping[str, Any]], engine: Engine | None, config: SynthesizeConfig
) -> SynthesisResult:
    """Three instructions per passage, by templates or by a language model."""
    made = SynthesisResult()
    model = engine.name if engine else "templates"
    for passage in passages:
        made.judged += 1
        if engine:
            instructions, unfinished = _ask_model(passage["text"], engine)
        else:
            instructions, unfinished = describe(passage["text"], passage["lang"]), Counter[str]()
        made.accepted += bool(instructions)
        made.unfinished += unfinished
        for level, instruction in zip(LEVELS, instructions, strict=False):
            provenance = {"document": passage["id"], "license": passage["license"], "model": model, "level": level}
            made.demonstrations.append(
                Conversation(
                    id=conversation_id(STRATEGY, passage["id"], level),
                    tags=("writing", level),
                    source="documents",
                    messages=answer(ask(instruction), passage["text"]),
                    strategy=STRATEGY,
                    lang=passage["lang"],
                    provenance=provenance,
                )
            )
    return made


def describe(passage: str, lang: str) -> tuple[str, ...]:
    """The three instructions from the passage's commonest long words; none when it has too few."""
    words = _HAN_WORD.findall(passage) if lang == "zh" else _WORD.findall(passage)
    common = [word for word, _ in Counter(words).most_common(3)]
    if len(common) < 3:
        return ()
    sentences = max(len(re.findall(r"[.!?。！？]", passage)), 1)
    start = passage[:6] if lang == "zh" else " ".join(passage.split()[:4])
    return tuple(text.format(*common, n=sentences, start=start) for text in _TEMPLATES.get(lang, _TEMPLATES["en"]))


def _ask_model(passage: str, engine: Engine) -> tuple[tuple[str, ...], Counter[str]]:
    """The three instructions, none where one is empty, was cut or was lost; and which of these it was."""
    prompts = [ask(_BRIEF_PROMPT.format(level=level, passage=passage)) for level in LEVELS]
    samples = [group[0] for group in engine.generate(prompts, Sampling(temperature=0.7, max_new_tokens=256))]
    faults = count_unfinished(samples)
    texts = tuple(sample.text.strip() for sample in samples)
    return (texts if all(texts) and not faults else ()), Counter(sorted(faults)[:1])


def _reads_as_prose(text: str) -> bool:
    letters = sum(char.isalpha() or char.isspace() for char in text)
    return letters / len(text) > 0.9
