"""Configuration of the contamination rule, which documents and instructions share."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from qwenops.recipe.config import Config
from qwenops.recipe.outside import Outside


class OverlapConfig(Config):
    """Which evaluation sets training data is cleaned of, and by which rule."""

    sets: tuple[str, ...] = Field(
        default=(
            "mmlu",
            "ceval",
            "cmmlu",
            "mmmlu",
            "gsm8k",
            "mgsm",
            "math",
            "humaneval",
            "mbpp",
            "bbh",
            "ifeval",
            "continuation",
        ),
        min_length=1,
        description="Evaluation sets; one whose files are not there is left out with a warning, §5.2.6.",
    )
    folder: str = Field(
        default="",
        description="Folder with one sub-folder of official files per set; house choice: the one of `benchmarks`.",
    )
    rule: Literal["subsequence", "ngram"] = Field(
        default="subsequence",
        description="subsequence: shared n-gram and longest common subsequence, §5.2.6; ngram: Qwen1's.",
    )
    ngram_words: int = Field(default=13, ge=2, description="Words of a shared run, and least common words, §5.2.6.")
    min_share: float = Field(
        default=0.6, gt=0, le=1, description="Least share of the shorter text in the common subsequence, §5.2.6."
    )
    short_items: Literal["ignore", "contain"] = Field(
        default="ignore",
        description="Questions and items shorter than the run: not found, or found verbatim; house choice: as the rule"
        " is.",
    )

    def outside(self) -> Iterator[Outside]:
        """See `Config.outside`."""
        if self.folder:
            yield from (Outside("files", f"{self.folder}/{name}") for name in self.sets)
