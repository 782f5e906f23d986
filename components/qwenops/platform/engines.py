"""Open a stage's generation engine: with its key, known by the name of a variable, and a store for its answers."""

from pathlib import Path

from qwenops.generation.config import EngineConfig
from qwenops.generation.engine import Engine
from qwenops.generation.factory import open_engine
from qwenops.platform.secrets import read_secret


def open_stage_engine(config: EngineConfig, scratch: Path, checkpoint: Path | None = None) -> Engine:
    """Open the engine of `config` for a stage.

    Args:
        config: Which engine.
        scratch: The stage's scratch folder; answers of an endpoint lie below it, so that a stage that was killed asks
            for the rest only.
        checkpoint: The stage's own model, used when the config names none.

    Raises:
        PlatformError: the variable that should hold the key is not set.
        RecipeError: as `open_engine`.
    """
    return open_engine(config, checkpoint, read_secret(config.api_key_variable), scratch / "answers")
