"""Configuration of `ingest`: how bytes become text, and which languages are kept."""

from typing import Literal

from pydantic import Field

from qwenops.recipe.config import Config


class IngestConfig(Config):
    """Extraction, normalisation, language identification and the train/heldout split."""

    extractor: Literal["combined", "trafilatura", "resiliparse"] = Field(
        default="combined",
        description="Reader of the main content of HTML; combined is resiliparse, trimmed, and trafilatura where that"
        " looks bad. house choice: an F1 near that of trafilatura alone at several times its speed.",
    )
    max_nesting: int = Field(
        default=200,
        ge=10,
        description="Deeper markup is dropped. house choice: parsers take quadratic time, lxml stops at 256.",
    )
    max_characters: int = Field(
        default=5_000_000,
        ge=1,
        description="Longer texts are dropped. house choice: bounds the memory of later stages.",
    )
    max_undecodable_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="More replaced or control characters is not text. house choice: repairs few.",
    )
    min_language_score: float = Field(
        default=0.65,
        ge=0,
        le=1,
        description="Below, the language is unknown and the text is dropped. house choice: FineWeb's.",
    )
    languages: tuple[str, ...] = Field(
        default=(
            "en",
            "zh",
            "de",
            "fr",
            "es",
            "pt",
            "it",
            "nl",
            "ru",
            "cs",
            "pl",
            "ar",
            "fa",
            "he",
            "tr",
            "ja",
            "ko",
            "vi",
            "th",
            "id",
            "ms",
            "lo",
            "my",
            "ceb",
            "km",
            "tl",
            "hi",
            "bn",
            "ur",
        ),
        description="Languages kept, ISO 639; empty keeps all. §3.1 says about 30, the list is from the release notes.",
    )
    heldout_share: float = Field(
        default=0.02,
        gt=0,
        lt=0.5,
        description="Share of documents that is never trained on. house choice: measures loss.",
    )
