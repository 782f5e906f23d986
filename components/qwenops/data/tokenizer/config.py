"""Settings of tokenizer training."""

from collections.abc import Iterator

from pydantic import Field

from qwenops.recipe.config import Config
from qwenops.recipe.outside import Outside


class TokenizerConfig(Config):
    """Size and training sample of the byte-level BPE vocabulary."""

    init_from: str = Field(
        default="",
        description="Model whose tokenizer is taken over, as pretrain.init_from names it; empty trains one. "
        "House choice: weights that exist need the tokenizer they were trained with.",
    )
    base: str = Field(
        default="",
        description="Byte-level vocabulary to extend: a .tiktoken file or a folder with tokenizer.json; empty begins"
        " with bytes, §2.1 (Qwen1 extended cl100k_base).",
    )
    vocabulary: int = Field(
        default=151_646, ge=260, description="Tokens in all, the three control tokens included, §2.1."
    )
    sample_bytes: int = Field(
        default=20_000_000_000,
        ge=10_000,
        description="UTF-8 bytes to train on, shared evenly by languages; house choice: fits a large machine's memory.",
    )
    least_frequency: int = Field(
        default=2, ge=1, description="Times a pair must occur to be merged; house choice: the trainer's own default."
    )
    measured_bytes: int = Field(
        default=1_000_000,
        ge=1000,
        description="Held-out bytes per language to measure compression on; house choice: 1 MB.",
    )

    def outside(self) -> Iterator[Outside]:
        """See `Config.outside`."""
        if self.init_from:
            yield Outside("model", self.init_from)
        if self.base:
            yield Outside("files", self.base)
