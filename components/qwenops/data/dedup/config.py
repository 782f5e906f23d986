"""Settings of deduplication."""

from typing import Literal

from pydantic import Field

from qwenops.recipe.config import Config


class ParagraphsConfig(Config):
    """Which paragraphs are kept in one document only, and how much of a document has to be left."""

    min_words: int = Field(
        default=0,
        ge=0,
        description="Least words of a paragraph that is compared, a character of a script without spaces being one; 0:"
        " repeated paragraphs stay. house choice: off; CCNet compares every line.",
    )
    unit: Literal["line", "block"] = Field(
        default="line", description="What a paragraph is: a line, or lines between blank ones. house choice: CCNet's."
    )
    domains: tuple[str, ...] = Field(
        default=("web", "prose"), description="Where they are cut. house choice: programs need their lines."
    )
    min_document_words: int = Field(
        default=50, ge=1, description="A document that has fewer left is dropped. house choice: Gopher's least."
    )


class DedupConfig(Config):
    """How exact and near duplicates are found.

    The report says fuzzy deduplication with MinHash and LSH without its numbers; the reference values are those
    of public pipelines: 5-word shingles, 14 bands of 8 rows.
    """

    bands: int = Field(
        default=20,
        ge=1,
        description="LSH bands; house choice: 20 of 6 find 99.8 % of pairs at Jaccard 0.8, 14 of 8 92 %.",
    )
    rows: int = Field(
        default=6, ge=1, description="Hashes per band; house choice: pairs are verified, so recall comes first."
    )
    jaccard: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Least exact Jaccard similarity of near duplicates; house choice: common practice.",
    )
    word_shingle: int = Field(default=5, ge=1, description="Words in a shingle; house choice: common practice.")
    character_shingle: int = Field(
        default=8,
        ge=1,
        description="Characters in a shingle of scripts without spaces; house choice: middle of 5 to 13.",
    )
    planted_documents: int = Field(
        default=400,
        ge=20,
        description="Documents perturbed to measure recall; house choice: a standard error below 1 %.",
    )
    paragraphs: ParagraphsConfig = Field(
        default=ParagraphsConfig(), description="Repeated paragraphs of other documents. house choice: off."
    )

    @property
    def hashes(self) -> int:
        """MinHash functions: one per row of every band."""
        return self.bands * self.rows
