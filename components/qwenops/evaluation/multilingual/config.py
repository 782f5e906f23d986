"""Configuration of the multilingual stage."""

from collections.abc import Iterator

from pydantic import Field

from qwenops.generation.config import EngineConfig, EngineUse
from qwenops.recipe.config import Config
from qwenops.recipe.outside import Outside


class MultilingualConfig(Config):
    """What is measured per language, and where the ratings of people come from."""

    tokens_per_language: int = Field(
        default=200_000, gt=0, description="Held-out tokens scored per language; house choice: an error below 1 %."
    )
    batch_tokens: int = Field(default=16384, gt=0, description="Tokens of one forward pass; house choice: memory only.")
    prompts_file: str = Field(
        default="",
        description="JSON lines {prompt, language, group} for the language check and the rating form; house choice: "
        "empty asks the project's own harmless prompts in six languages. §5.2.4 does not publish its own.",
    )
    prompts_per_language: int = Field(
        default=20, ge=0, description="Prompts answered per language; house choice: one sitting for an annotator."
    )
    max_new_tokens: int = Field(
        default=256, gt=0, description="Longest response in tokens; house choice: a paragraph to rate."
    )
    engine: EngineConfig = Field(
        default=EngineConfig(), description="Who generates; house choice: in process; vLLM or an endpoint on a cluster."
    )
    ratings_file: str = Field(
        default="",
        description="Filled rating form to average, scores 1 to 5 by one annotator per language. §5.2.4; house choice: "
        "empty, since people come after the run.",
    )
    folder: str = Field(
        default="",
        description="Folder with mmmlu/ and mgsm/ in their official formats; house choice: empty leaves both out.",
    )
    limit_items: int = Field(
        default=0, ge=0, description="Items of M-MMLU and of MGSM, even over languages; house choice: 0 takes all."
    )
    max_shots: int = Field(default=25, ge=0, description="Cap on worked examples; §5.1 gives 5 for M-MMLU, 8 for MGSM.")

    def engines(self) -> tuple[EngineUse, ...]:
        """See `Config.engines`."""
        return (EngineUse("engine", self.engine, True),)

    def outside(self) -> Iterator[Outside]:
        """See `Config.outside`."""
        yield from super().outside()
        yield from (Outside("files", path) for path in (self.prompts_file, self.ratings_file) if path)
        if self.folder:
            yield from (Outside("files", f"{self.folder}/{name}") for name in ("mmmlu", "mgsm"))

    def unreached(self) -> tuple[str, ...]:
        """The exams, with the scorers of generated answers: they are given where there is a folder."""
        return () if self.folder else ("qwenops.evaluation.multilingual.run:_examine",)
