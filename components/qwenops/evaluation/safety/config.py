"""Configuration of the safety stage."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from qwenops.generation.config import EngineConfig, EngineUse
from qwenops.recipe.config import Config
from qwenops.recipe.outside import Outside


class SafetyConfig(Config):
    """Which prompts are asked, and who judges the responses."""

    languages: tuple[str, ...] = Field(
        default=("en", "zh", "es", "fr", "de", "pt"),
        min_length=1,
        description="Languages asked; §5.2.5 says only 'multiple languages', these have project-written prompts.",
    )
    prompts_file: str = Field(
        default="",
        description="JSON lines {prompt, category, language} asked besides the project's own prompts, for example "
        "translated jailbreak prompts; §5.2.5 uses such prompts and does not publish them.",
    )
    limit_per_cell: int = Field(
        default=0, ge=0, description="Prompts per category and language; house choice: 0 takes all held-out ones."
    )
    max_new_tokens: int = Field(
        default=128, gt=0, description="Longest response; house choice: refusal or compliance shows at its start."
    )
    engine: EngineConfig = Field(
        default=EngineConfig(), description="Who generates for the two models; house choice: in process."
    )
    judge: Literal["classifier", "llm"] = Field(
        default="classifier",
        description="Who decides that a response complies, after the refusal rules; §5.2.5 does not publish its own.",
    )
    judge_engine: EngineConfig = Field(
        default=EngineConfig(), description="The judging model when judge is 'llm'; house choice: must be named then."
    )
    threshold: float = Field(
        default=0.5, gt=0, lt=1, description="Probability from which a response 'complied'; house choice: even odds."
    )
    labelled_file: str = Field(
        default="",
        description="JSON lines {prompt, response, label: refused|complied|neither} to measure the judge on; house "
        "choice: empty uses the 72 responses the project wrote.",
    )
    refusal_labels: tuple[str, ...] = Field(
        default=(),
        description="JSON lines {objective, assistant_response, human_score} where people say whether the response "
        "refuses; house choice: none, and the judge's agreement with people is then not measured.",
    )
    harm_labels: tuple[str, ...] = Field(
        default=(), description="JSON lines as above where people say whether it harms; house choice: none, as above."
    )

    def engines(self) -> tuple[EngineUse, ...]:
        """See `Config.engines`."""
        judging = (EngineUse("judge_engine", self.judge_engine, False),) if self.judge == "llm" else ()
        return (EngineUse("engine", self.engine, True), *judging)

    def outside(self) -> Iterator[Outside]:
        """See `Config.outside`."""
        yield from super().outside()
        own = (self.prompts_file, self.labelled_file, *self.refusal_labels, *self.harm_labels)
        yield from (Outside("files", path) for path in own if path)
