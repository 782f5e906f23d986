"""Configuration of the evolve stage."""

from typing import Literal

from pydantic import Field

from qwenops.generation.config import EngineConfig, EngineUse
from qwenops.recipe.config import Config
from qwenops.tasks.config import OverlapConfig


class EvolveConfig(Config):
    """How instructions are made harder, and how many become demonstrations."""

    evolver: Literal["rules", "llm"] = Field(
        default="llm", description="Who adds requirements: a model, §4.1.1, or rules as a labelled stand-in."
    )
    engine: EngineConfig = Field(
        default_factory=EngineConfig, description="Engine of the llm evolver. house choice: any protocol engine."
    )
    temperature: float = Field(default=0.7, ge=0, description="Temperature of the llm evolver. house choice: variety.")
    evolved_share: float = Field(
        default=0.5, ge=0, le=1, description="Instructions that also get a harder child; originals stay too, §4.1.1."
    )
    added_nodes: tuple[int, ...] = Field(
        default=(3, 6, 10),
        description="Nodes the llm evolver adds to a tree, drawn per row. house choice: Tree-Instruct's three sizes.",
    )
    task_steps: tuple[str, ...] = Field(
        default=("drop_first", "drop_last", "reverse", "first", "last"),
        description="Steps rules may add to a verifiable task. house choice: short answers.",
    )
    max_rouge_l: float = Field(
        default=0.9, gt=0, le=1, description="A child nearer to its parent is dropped. house choice: near-duplicates."
    )
    demonstrations_per_source: int = Field(
        default=20000,
        ge=0,
        description="Answered training rows per source that the first SFT may see; the rest become prompts. house "
        "choice: a model must exist before it can be sampled from.",
    )
    verifiable_demonstrations: int = Field(
        default=3000,
        ge=0,
        description="The same for verifiable tasks, half at most. house choice: leaves prompts to sample on.",
    )
    heldout_evolved: int = Field(
        default=100, ge=0, description="Held-out harder tasks. house choice: shows whether difficulty was learned."
    )
    decontamination: OverlapConfig | None = Field(
        default=None,
        description="Evaluation sets that rows are cleaned of, §5.2.6; null: those of `decontaminate`. house choice:"
        " one rule for documents and instructions.",
    )

    def engines(self) -> tuple[EngineUse, ...]:
        """See `Config.engines`."""
        return (EngineUse("engine", self.engine, False),) if self.evolver == "llm" else ()
