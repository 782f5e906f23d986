"""Configuration of the synthesize stage."""

from typing import Literal

from pydantic import Field

from qwenops.generation.config import EngineConfig, EngineUse
from qwenops.generation.engine import Sampling
from qwenops.recipe.config import Config
from qwenops.recipe.isolation import Isolation
from qwenops.tasks.config import OverlapConfig

Strategy = Literal["rejection_sampling", "code_execution", "instruction_following", "repurposing", "constitution"]


class SynthesizeConfig(Config):
    """Which strategies run, how much each makes, and who writes what a program cannot."""

    strategies: tuple[Strategy, ...] = Field(
        default=("rejection_sampling", "code_execution", "instruction_following", "repurposing", "constitution"),
        description="Strategies to run; the four of §4.1.2, execution feedback being two.",
    )
    engine: EngineConfig = Field(
        default_factory=EngineConfig, description="Engine that answers questions. house choice: the stage's checkpoint."
    )
    writer: Literal["written", "llm"] = Field(
        default="llm",
        description="Who writes programs, checks, briefs and principled answers: a model, §4.1.2, or the project's own "
        "texts, labelled so.",
    )
    writer_engine: EngineConfig = Field(
        default_factory=EngineConfig, description="Engine of the llm writer. house choice: any protocol engine."
    )
    rejection_prompts: int = Field(
        default=10000, ge=0, description="Verifiable questions to sample answers for. house choice: all there are."
    )
    rejection_sampling: Sampling = Field(
        default=Sampling(temperature=0.7, n=100, max_new_tokens=512),
        description="How answers are drawn. house choice: the 100 at 0.7 of the RFT paper.",
    )
    rejection_rounds: int = Field(
        default=1,
        ge=1,
        description="Times n answers are drawn; later rounds ask only what was not solved. house choice: RFT has one; "
        "rounds spend the samples on hard questions, which would else be missing among the demonstrations.",
    )
    max_right_per_prompt: int = Field(default=4, ge=1, description="Right answers kept. house choice: breadth.")
    max_pairs_per_prompt: int = Field(default=4, ge=0, description="Right-wrong pairs kept. house choice: breadth.")
    programs_per_task: int = Field(
        default=8, ge=2, description="Candidate programs per coding task. house choice: some right, some wrong."
    )
    sandbox_seconds: float = Field(
        default=5.0, gt=0, description="Time limit of one program. house choice: the 5 s of AutoIF's script."
    )
    program_isolation: Isolation = Field(
        default="bubblewrap",
        description="How tested programs are confined; house choice: bubblewrap, and where that is impossible they do "
        "not run unless the recipe says none_at_own_risk.",
    )
    following_instructions: int = Field(
        default=2000, ge=0, description="Instructions given checked constraints. house choice: seconds of sandbox each."
    )
    check_agreement: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Share of checks, and of cases, that must agree. house choice: AutoIF's cross-validation.",
    )
    repurposed_documents: int = Field(
        default=2000, ge=0, description="Prose passages given instructions. house choice: three rows each."
    )
    max_passage_characters: int = Field(
        default=4000, ge=40, description="Longest passage used as a response. house choice: fits the context."
    )
    constitution_prompts: int = Field(
        default=10000, ge=0, description="Prompts answered by principle. house choice: all the project has."
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
        answering = (EngineUse("engine", self.engine, True),) if "rejection_sampling" in self.strategies else ()
        writing = (EngineUse("writer_engine", self.writer_engine, True),) if self.writer == "llm" else ()
        return answering + writing
