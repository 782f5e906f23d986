"""One protocol for everything that generates: taggers, judges, evolvers, rollouts and evaluations.

A prompt is rendered ChatML text (see `chat.render`), so that an engine needs no opinion about chat formats and the
text a model reads is the same whichever engine runs it.
"""

from collections.abc import Sequence
from typing import Protocol

from pydantic import Field

from qwenops.recipe.config import Config


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


class Engine(Protocol):
    """Anything that continues prompts."""

    @property
    def name(self) -> str:
        """What is generating, for provenance: a model name or a checkpoint's folder."""
        ...

    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[list[str]]:
        """Return `sampling.n` responses for each prompt, in the prompts' order, without the end-of-turn token."""
        ...
