"""Configuration of `quality`: published thresholds of the rules, and the scores of the models."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from qwenops.generation.config import EngineConfig, EngineUse
from qwenops.recipe.config import Config
from qwenops.recipe.outside import Outside

_ANY = ("web", "prose", "math")


class GopherConfig(Config):
    """Gopher's quality and repetition rules, as datatrove implements them."""

    domains: tuple[str, ...] = Field(
        default=("web", "prose"), description="Where they apply. house choice: not to code."
    )
    min_words: int = Field(default=50, ge=0, description="Fewer words are dropped. house choice: Gopher's.")
    max_words: int = Field(default=100_000, ge=1, description="More words are dropped. house choice: Gopher's.")
    min_mean_word: float = Field(default=3.0, description="Shortest mean word length. house choice: Gopher's.")
    max_mean_word: float = Field(default=10.0, description="Longest mean word length. house choice: Gopher's.")
    max_symbol_ratio: float = Field(default=0.1, description="Most '#' or ellipses per word. house choice: Gopher's.")
    max_bullet_lines: float = Field(default=0.9, description="Most lines that start as a list. house choice: Gopher's.")
    max_ellipsis_lines: float = Field(default=0.3, description="Most lines that trail off. house choice: Gopher's.")
    min_alphabetic_words: float = Field(default=0.8, description="Least words with a letter. house choice: Gopher's.")
    min_stop_words: int = Field(
        default=2, ge=0, description="Distinct stop words of the language needed. house choice: Gopher's."
    )
    stop_word_languages: tuple[str, ...] = Field(
        default=("en", "de", "fr", "es", "pt", "it", "nl", "ru", "cs", "pl", "tr", "ar", "fa", "he", "id", "ms", "vi",
                 "hi", "ur", "bn", "zh", "ja", "th", "lo", "my", "km"),
        description="Languages asked for stop words; those with a list. house choice: Gopher asks English.",
    )  # fmt: skip
    min_stop_share: float = Field(
        default=0.02,
        description="Least letters in stop words where words have no blanks. house choice: a tenth of what prose has.",
    )


class RepetitionConfig(Config):
    """Gopher's repetition rules."""

    domains: tuple[str, ...] = Field(default=_ANY, description="Where they apply. house choice: programs repeat lines.")
    max_duplicate_lines: float = Field(default=0.3, description="Most lines seen before. house choice: Gopher's.")
    max_duplicate_paragraphs: float = Field(
        default=0.3, description="Most paragraphs seen before. house choice: Gopher's."
    )
    max_duplicate_line_characters: float = Field(
        default=0.2, description="Same, by characters. house choice: Gopher's."
    )
    max_duplicate_paragraph_characters: float = Field(
        default=0.2, description="Same for paragraphs, by characters. house choice: Gopher's."
    )
    max_top_ngram: tuple[float, ...] = Field(
        default=(0.20, 0.18, 0.16), description="Largest share of the top 2-, 3-, 4-gram. house choice: Gopher's."
    )
    max_repeated_ngram: tuple[float, ...] = Field(
        default=(0.15, 0.14, 0.13, 0.12, 0.11, 0.10),
        description="Largest share of repeated 5- to 10-grams. house choice: Gopher's.",
    )


class C4Config(Config):
    """C4's line and document rules."""

    domains: tuple[str, ...] = Field(
        default=("web",), description="Where they apply. house choice: written for web text."
    )
    min_words_per_line: int = Field(default=3, ge=0, description="Shorter lines are cut. house choice: C4's.")
    max_word_characters: int = Field(
        default=1000, ge=1, description="Lines with a longer word are cut. house choice: C4's."
    )
    line_end: Literal["any", "terminal"] = Field(
        default="any",
        description="terminal: lines that no mark ends are cut, as C4 does. house choice: any, as FineWeb.",
    )
    min_sentences: int = Field(default=5, ge=0, description="Fewer sentences are dropped. house choice: C4's.")


class FinewebConfig(Config):
    """FineWeb's own rules."""

    domains: tuple[str, ...] = Field(
        default=("web",), description="Where they apply. house choice: written for web text."
    )
    min_terminated_lines: float = Field(
        default=0.12, description="Least lines ending a sentence. house choice: FineWeb's."
    )
    max_short_lines: float = Field(
        default=0.67, description="Most lines of 30 characters or less. house choice: FineWeb's."
    )
    max_duplicated_characters: float = Field(
        default=0.01, description="Most characters in repeated lines. house choice: FineWeb's."
    )
    max_newlines_per_word: float = Field(default=0.3, description="Most line breaks per word. house choice: FineWeb's.")


class CodeConfig(Config):
    """Rules for program files, as The Stack and StarCoder state them."""

    max_mean_line: float = Field(default=100.0, description="Longest mean line. house choice: StarCoder's.")
    max_line: int = Field(default=1000, ge=1, description="Longest line. house choice: StarCoder's.")
    min_alphanumeric: float = Field(default=0.25, description="Least letters and digits. house choice: StarCoder's.")
    min_characters: int = Field(
        default=100, ge=0, description="Shorter files teach nothing. house choice: empty packages."
    )


class ClassifierConfig(Config):
    """The trained classifier: hashed character and word n-grams, one linear layer, scores out of fold."""

    num_features: int = Field(
        default=1 << 18, ge=1 << 10, description="Hash buckets. house choice: collisions are rare."
    )
    num_documents: int = Field(
        default=20_000, ge=100, description="Documents trained on at most. house choice: seconds."
    )
    num_characters: int = Field(
        default=1500, ge=100, description="Characters of a document it sees. house choice: speed."
    )
    strict_threshold: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Lowest score of the strict set. §3.1 keeps 7T tokens; house choice: even odds.",
    )
    relaxed_threshold: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Lowest score of the relaxed set. §3.1 keeps 12T tokens; house choice: spares the doubtful.",
    )


class PiiConfig(Config):
    """Personal data that is masked in every document."""

    kinds: tuple[Literal["key", "email", "iban", "national_id", "card", "ip", "phone"], ...] = Field(
        default=("key", "email", "iban", "national_id", "card", "ip", "phone"),
        description="What is masked. house choice: all that has a form of its own; FineWeb masks email and ip.",
    )


class PerplexityConfig(Config):
    """An n-gram model of trusted text, one for each language, trained in the stage."""

    sources: tuple[str, ...] = Field(
        default=(),
        description="Names of the trusted sources; empty: no score. §3.1 (models filter); house choice: off.",
    )
    order: int = Field(default=3, ge=1, le=6, description="Longest n-gram. house choice: little text is trusted.")
    discount: float = Field(
        default=0.75, gt=0, lt=1, description="Taken from every count. house choice: the usual value for text."
    )
    num_words: int = Field(
        default=2_000_000, ge=1, description="Words trained on at most, by language and fold. house choice: 100 MB."
    )
    strict_share: float = Field(
        default=0.67,
        gt=0,
        le=1,
        description="Share of a language, the most fluent, in the strict set. house choice: CCNet's head and middle.",
    )
    relaxed_share: float = Field(
        default=1.0, gt=0, le=1, description="The same for the relaxed set. house choice: CCNet's tail as well."
    )


class OffensiveConfig(Config):
    """A linear model of offensive text, trained in the stage from labelled lines."""

    labelled: str = Field(
        default="",
        description="JSONL with text and label (1 offensive, 0 not); empty: no score. §3.1; house choice: off.",
    )
    strict_threshold: float = Field(
        default=0.5, ge=0, le=1, description="Highest score of the strict set. house choice: even odds."
    )
    relaxed_threshold: float = Field(
        default=0.8, ge=0, le=1, description="Highest score of the relaxed set. house choice: spares the doubtful."
    )

    def outside(self) -> Iterator[Outside]:
        """See `Config.outside`."""
        if self.labelled:
            yield Outside("files", self.labelled)


class RubricConfig(Config):
    """A language model that grades documents from 0 to 5."""

    num_documents: int = Field(
        default=0, ge=0, description="Documents graded at most; 0: none. §3.1 (Qwen models filter); house choice: off."
    )
    engine: EngineConfig = Field(default=EngineConfig(), description="Who grades. house choice: must name a model.")
    num_characters: int = Field(
        default=2000, ge=100, description="Characters of a document it reads. house choice: a page."
    )
    max_new_tokens: int = Field(default=16, ge=1, description="Length of its answer. house choice: a grade.")
    strict_threshold: int = Field(
        default=3, ge=0, le=5, description="Lowest grade of the strict set. house choice: FineWeb-Edu's."
    )
    relaxed_threshold: int = Field(
        default=2, ge=0, le=5, description="Lowest grade of the relaxed set. house choice: spares the doubtful."
    )


class QualityConfig(Config):
    """Rules first, then the classifier; every dropped document has a reason word."""

    counting: Literal["blanks", "marks"] = Field(
        default="marks",
        description="marks: punctuation marks are words and each line is a sentence at least, as the thresholds were"
        " published; blanks: words stand between blanks. house choice: the published meaning.",
    )
    gopher: GopherConfig = Field(default=GopherConfig(), description="Gopher quality rules. §3.1 (heuristic filters).")
    repetition: RepetitionConfig = Field(
        default=RepetitionConfig(), description="Repetition. §3.1 (heuristic filters)."
    )
    c4: C4Config = Field(default=C4Config(), description="C4 rules. §3.1 (heuristic filters).")
    fineweb: FinewebConfig = Field(default=FinewebConfig(), description="FineWeb rules. §3.1 (heuristic filters).")
    code: CodeConfig = Field(default=CodeConfig(), description="Rules for programs. §3.1 (heuristic filters).")
    classifier: ClassifierConfig = Field(default=ClassifierConfig(), description="Model-based filter. §3.1.")
    pii: PiiConfig = Field(default=PiiConfig(), description="Masking of personal data. house choice: on.")
    perplexity: PerplexityConfig = Field(default=PerplexityConfig(), description="Language model filter. §3.1.")
    offensive: OffensiveConfig = Field(default=OffensiveConfig(), description="Offensive content filter. §3.1.")
    rubric: RubricConfig = Field(default=RubricConfig(), description="Chat model as a filter. §3.1.")
    forgiven_rules: tuple[str, ...] = Field(
        default=(), description="Reason words of rules that the relaxed set forgives. §3.1; house choice: none."
    )
    keep: Literal["strict", "relaxed"] = Field(
        default="strict", description="Which set goes on. §3.1: strict (7T) for most sizes, relaxed (12T) for 0.5B."
    )

    @model_validator(mode="after")
    def _relaxed_is_no_stricter(self) -> "QualityConfig":
        pairs = (
            ("classifier threshold", self.classifier.relaxed_threshold, self.classifier.strict_threshold),
            ("rubric threshold", self.rubric.relaxed_threshold, self.rubric.strict_threshold),
            ("perplexity share", -self.perplexity.relaxed_share, -self.perplexity.strict_share),
            ("offensive threshold", -self.offensive.relaxed_threshold, -self.offensive.strict_threshold),
        )
        stricter = [name for name, relaxed, strict in pairs if relaxed > strict]
        if stricter:
            raise ValueError(f"the relaxed set must hold the strict one, but its {', '.join(stricter)} is stricter")
        return self

    def engines(self) -> tuple[EngineUse, ...]:
        """See `Config.engines`."""
        return (EngineUse("rubric.engine", self.rubric.engine, False),) if self.rubric.num_documents else ()
