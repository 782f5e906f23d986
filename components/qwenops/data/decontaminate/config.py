"""Settings of decontamination."""

from pydantic import Field

from qwenops.tasks.config import OverlapConfig


class DecontaminateConfig(OverlapConfig):
    """Which evaluation sets to clean the documents of, and by which rule; instructions follow it unless told else."""

    planted_items: int = Field(
        default=200,
        ge=1,
        description="Questions, answers and items hidden in passages to measure removal; house choice: a standard error"
        " below 1 %.",
    )

    def rule_of_rows(self) -> OverlapConfig:
        """The same sets and rule, for the stages that make instructions, demonstrations and preferences."""
        return OverlapConfig(**{name: getattr(self, name) for name in OverlapConfig.model_fields})
