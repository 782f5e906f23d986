"""Configuration of the contamination stage."""

from pydantic import Field

from qwenops.recipe.config import Config


class ContaminationConfig(Config):
    """When a test item counts as contaminated, and how much of the evidence is kept."""

    gram_words: int = Field(
        default=13, gt=0, description="Length of a shared run of words that contaminates a test item, in words. §5.2.6."
    )
    examples_per_task: int = Field(
        default=5, ge=0, description="Contaminated items shown per benchmark; house choice: enough to judge by eye."
    )
