"""Configuration of the select stage."""

from pydantic import Field

from qwenops.recipe.config import Config


class Quota(Config):
    """How many instructions one source may give."""

    source: str = Field(default="", description="Source word of the rows: verifiable, documents, safety. §4.1.1.")
    rows: int = Field(default=0, ge=0, description="Most rows to take. house choice: keeps every source present.")


class SelectConfig(Config):
    """How many instructions are kept, and how good they must be."""

    size: int = Field(
        default=6000, ge=1, description="Training instructions to keep; InsTag's 6,000, the method cited in §4.1.1."
    )
    quotas: tuple[Quota, ...] = Field(
        default=(), description="Most rows per source; a source without one is bounded by size. house choice: balance."
    )
    min_completeness: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of the completeness rules an instruction must pass; intent completeness, §4.1.1.",
    )
    min_characters: int = Field(default=4, ge=1, description="Shortest instruction. house choice: a verb and a thing.")
    max_characters: int = Field(default=8000, ge=1, description="Longest instruction. house choice: fits the context.")
