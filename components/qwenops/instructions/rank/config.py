"""Configuration of the rank stage."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from qwenops.generation.config import EngineConfig, EngineUse
from qwenops.generation.engine import Sampling
from qwenops.recipe.config import Config
from qwenops.recipe.outside import Outside
from qwenops.tasks.config import OverlapConfig


class RankConfig(Config):
    """How responses are drawn, who ranks them, and what becomes of a ranking."""

    prompts: int = Field(
        default=5000, ge=1, description="Instructions to rank responses for. house choice: what people have time for."
    )
    strategies: tuple[Sampling, ...] = Field(
        default=(
            Sampling(),
            Sampling(temperature=0.7, top_p=0.8, seed=1),
            Sampling(temperature=1.0, seed=2),
            Sampling(temperature=1.2, top_p=0.95, seed=3),
        ),
        description="Decoding strategies, one group of responses each; diverse strategies, §4.1.1.",
    )
    engine: EngineConfig = Field(
        default_factory=EngineConfig, description="Engine that answers. house choice: the stage's checkpoint."
    )
    judge: Literal["machine", "people"] = Field(
        default="people", description="Who ranks: people, §4.1.1, or a labelled machine judge."
    )
    annotations: str = Field(
        default="", description="JSON lines of people's rankings; empty exports the tasks and pauses. §4.1.1."
    )
    annotators: int = Field(default=2, ge=1, description="People per instruction. house choice: agreement needs two.")
    pairs: Literal["all", "best_vs_rest"] = Field(
        default="all", description="Which pairs of a ranking become preferences. house choice: all of them."
    )
    acceptance: float = Field(
        default=0.8, ge=0, le=1, description="Grade the best response needs to become a demonstration. §4.1.1."
    )
    heldout_share: float = Field(
        default=0.15, ge=0, lt=1, description="Instructions whose pairs are held out. house choice: hundreds of pairs."
    )
    decontamination: OverlapConfig | None = Field(
        default=None,
        description="Evaluation sets that rows are cleaned of, §5.2.6; null: those of `decontaminate`. house choice:"
        " one rule for documents and instructions.",
    )

    def engines(self) -> tuple[EngineUse, ...]:
        """See `Config.engines`."""
        return (EngineUse("engine", self.engine, True),)

    def outside(self) -> Iterator[Outside]:
        """See `Config.outside`."""
        yield from super().outside()
        if self.annotations:
            yield Outside("files", self.annotations)
