"""Configuration of the ontology stage."""

from typing import Literal

from pydantic import Field

from qwenops.generation.config import EngineConfig, EngineUse
from qwenops.recipe.config import Config
from qwenops.tasks.config import OverlapConfig


class Edit(Config):
    """One decision of a person about one tag."""

    action: Literal["rename", "merge", "drop"] = Field(
        default="rename", description="What to do with the tag; manual refinement of the ontology, §4.1.1."
    )
    tag: str = Field(default="", description="The tag as the exported table names it. §4.1.1.")
    into: str = Field(default="", description="New name, or the tag to merge into; empty for drop. §4.1.1.")


class OntologyConfig(Config):
    """Which instructions enter, how they are tagged, and how the tags become an ontology."""

    task_kinds: tuple[str, ...] = Field(
        default=("reverse", "sort", "copy", "last", "max", "passkey"),
        description="Kinds of verifiable tasks. house choice: short strings a very small model learns.",
    )
    tasks_per_kind: int = Field(
        default=5000, ge=0, description="Training instructions of each kind. house choice: the pool to select from."
    )
    heldout_per_kind: int = Field(
        default=100, ge=0, description="Held-out instructions of each kind. house choice: 400 or more in all."
    )
    min_digits: int = Field(default=5, ge=2, description="Shortest string of digits. house choice: as tried.")
    max_digits: int = Field(default=6, ge=2, description="Longest string of digits. house choice: as tried.")
    document_instructions: int = Field(
        default=20000, ge=0, description="Instructions made from documents. house choice: breadth beside the tasks."
    )
    max_passage_characters: int = Field(
        default=2000, ge=40, description="Longest text taken from a document. house choice: an instruction, not a book."
    )
    safety_prompts: Literal["include", "omit"] = Field(
        default="include", description="Whether the safety prompts enter the pool. §4.1.2 names safety as an area."
    )
    tagger: Literal["lexical", "llm"] = Field(
        default="llm", description="Who tags: a language model, §4.1.1, or words as a labelled stand-in for it."
    )
    engine: EngineConfig = Field(
        default_factory=EngineConfig, description="Engine of the llm tagger. house choice: any protocol engine."
    )
    max_tags_per_instruction: int = Field(
        default=16, ge=1, description="Tags kept from one answer of the tagger. house choice: bounds a runaway list."
    )
    min_frequency: int = Field(
        default=20, ge=1, description="Tags seen less often are dropped; InsTag's alpha, the method cited in §4.1.1."
    )
    semantic_distance: float = Field(
        default=0.05, ge=0, le=1, description="DBSCAN radius in cosine distance between tags; InsTag, cited in §4.1.1."
    )
    association_support: int = Field(
        default=40, ge=1, description="Rows in which two tags must occur together; InsTag's FP-Growth, cited in §4.1.1."
    )
    association_confidence: float = Field(
        default=0.99, gt=0, le=1, description="Confidence, both ways, to merge two tags; InsTag, cited in §4.1.1."
    )
    edits: tuple[Edit, ...] = Field(
        default=(), description="Decisions of people about the exported table, applied last. §4.1.1."
    )
    decontamination: OverlapConfig | None = Field(
        default=None,
        description="Evaluation sets that rows are cleaned of, §5.2.6; null: those of `decontaminate`. house choice:"
        " one rule for documents and instructions.",
    )

    def engines(self) -> tuple[EngineUse, ...]:
        """See `Config.engines`."""
        return (EngineUse("engine", self.engine, False),) if self.tagger == "llm" else ()
