"""`EvalItem`: one test item of an evaluation set, whatever file it came from.

Readers (`evalset_readers`) turn official files into items; the benchmark harness, decontamination and the
contamination analysis know only this shape, so a new set needs one reader and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Part = Literal["question", "answer", "whole"]
Scorer = Literal["choice", "number", "math", "python", "ifeval", "exact", "verifier"]


@dataclass(frozen=True)
class EvalItem:
    """One item.

    Attributes:
        id: Unique in its set, for example "mmlu/astronomy/3".
        task: Name of the set.
        subject: Subject or sub-task; averages are reported over it too.
        prompt: The question as the model sees it, up to where its answer begins; without shots.
        text: The item's own words (question, options, reference solution) without template: what
            contamination is measured on.
        parts: Other texts by which the item leaks: its question alone, its answer alone, the whole in the other
            wordings in which it goes round (options behind their letters). Each is looked for by itself, since a
            question without its solution is a small share of both.
        scorer: How an answer is judged.
        gold: The right answer; for "choice" the option's number as text, for "python" empty.
        target: What follows `prompt` when the item serves as a shot.
        options: Continuations to compare by log-likelihood ("choice" only).
        header: Text in front of all shots.
        facts: What the scorer needs besides: tests, entry point, instruction list, verifier.
        lang: Language of the question, ISO 639-1.
    """

    id: str
    task: str
    subject: str
    prompt: str
    text: str
    scorer: Scorer
    parts: tuple[tuple[Part, str], ...] = ()
    gold: str = ""
    target: str = ""
    options: tuple[str, ...] = ()
    header: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    lang: str = "en"

    @property
    def leaks(self) -> tuple[tuple[Part, str], ...]:
        """Every text by which the item leaks, the whole first; equal ones once."""
        everything: list[tuple[Part, str]] = [("whole", self.text), *self.parts]
        texts: dict[str, Part] = {text: part for part, text in reversed(everything)}
        return tuple((part, text) for text, part in reversed(texts.items()))
