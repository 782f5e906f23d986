"""One protocol for everything that generates: taggers, judges, evolvers, rollouts and evaluations.

A prompt is messages or a plain text, never rendered text, so that each engine can keep contents and
scaffolding apart. A sample says how it ended: an answer that was cut at the token limit is no answer that ended.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import Field

from qwenops.contracts.conversation import Message
from qwenops.recipe.config import Config

Prompt = str | Sequence[Message]
"""What a model continues: messages, answered in the assistant's next turn, or a text, continued as it stands."""
Finish = Literal["stop", "length", "lost"]


class Sampling(Config):
    """How to draw responses."""

    temperature: float = Field(
        default=0.0, ge=0.0, description="Softmax temperature; 0 takes the likeliest token. house choice: repeatable."
    )
    top_p: float = Field(
        default=1.0, gt=0.0, le=1.0, description="Nucleus mass to draw from. house choice: 1, the whole distribution."
    )
    max_new_tokens: int = Field(
        default=256, ge=1, description="Tokens after which a response is cut. house choice: a paragraph."
    )
    n: int = Field(default=1, ge=1, description="Responses per prompt. house choice: one.")
    seed: int = Field(default=0, description="Seed of the draws. house choice: any fixed number.")

    @property
    def label(self) -> str:
        """Short name for provenance: `greedy` or `T0.7/p0.9`."""
        return "greedy" if self.temperature == 0 else f"T{self.temperature:g}/p{self.top_p:g}"


@dataclass(frozen=True)
class Sample:
    """One response.

    Attributes:
        text: What it says, control tokens left out; "" when it was lost.
        finish: "stop": the model ended it; "length": it was cut at the token limit; "lost": no answer came.
        token_ids: The ids that were drawn, the end token among them when it ended; None where only text is known.
        model: Name of the engine that drew it.
        reasoning: Reasoning that stood before the answer; never part of `text`.
        fault: Why it was lost.
    """

    text: str
    finish: Finish = "stop"
    token_ids: tuple[int, ...] | None = None
    model: str = ""
    reasoning: str = ""
    fault: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether the model ended the response by itself."""
        return self.finish == "stop"


class Engine(Protocol):
    """Anything that continues prompts."""

    @property
    def name(self) -> str:
        """What is generating, for provenance: a model name or a checkpoint's folder."""
        ...

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Sample]]:
        """Return `sampling.n` samples for each prompt, in the prompts' order."""
        ...


def count_unfinished(samples: Iterable[Sample]) -> Counter[str]:
    """How many samples were "cut" at the token limit and how many were "lost"."""
    names = {"length": "cut", "lost": "lost"}
    return Counter(names[sample.finish] for sample in samples if not sample.is_whole)
