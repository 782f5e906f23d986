"""`Config`: the frozen, strict base of every stage's configuration.

Frozen because a config is a value; strict and closed because a key in the wrong place must be an error
and never a silent default. Every field carries a description that ends with its source: a section mark
of the Qwen2 report or the words "house choice:" and why (a test reads them).
"""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

from qwenops.recipe.outside import Outside


class Config(BaseModel):
    """Base of all configs: frozen, strict, unknown keys refused, finite numbers only."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    def outside(self) -> Iterator[Outside]:
        """What this config and those in it name that lies outside the recipe; a class with such a field adds to it."""
        for name in type(self).model_fields:
            value: Any = getattr(self, name)
            parts: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)
            for part in parts:
                if isinstance(part, Config):
                    yield from part.outside()

    def unreached(self) -> tuple[str, ...]:
        """Functions, as `module:name`, that the stage's `run` calls but not with this config."""
        return ()
