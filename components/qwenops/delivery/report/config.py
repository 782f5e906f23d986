"""The report stage has little to choose: what it shows is what the run recorded."""

from pydantic import Field

from qwenops.recipe.config import Config


class ReportConfig(Config):
    """Settings of the report page."""

    most_bytes: int = Field(
        default=5_000_000,
        ge=10_000,
        description="Largest page, in bytes. house choice: a browser on a phone opens it at once.",
    )
