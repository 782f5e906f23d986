"""Settings of tokenisation."""

from pydantic import Field

from qwenops.recipe.config import Config


class TokensConfig(Config):
    """How documents become token shards; ids, dtype and weights follow from the inputs."""

    checked_documents: int = Field(
        default=500,
        ge=1,
        description="Documents decoded again and compared; house choice: enough to notice a wrong tokenizer.",
    )
    batch_documents: int = Field(
        default=256,
        ge=1,
        description="Documents encoded in one call; house choice: keeps memory small, changes no output.",
    )
