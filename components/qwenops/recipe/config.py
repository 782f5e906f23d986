"""`Config`: the frozen, strict base of every stage's configuration.

Frozen because a config is a value; strict and closed because a key in the wrong place must be an error
and never a silent default. Every field carries a description that ends with its source: a section mark
of the Qwen2 report or the words "house choice:" and why (a test reads them).
"""

from collections.abc import Iterator
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, model_validator

from qwenops.recipe.outside import Outside

_LARGEST = 2**63


class Config(BaseModel):
    """Base of all configs: frozen, strict, unknown keys refused, finite numbers only, whole ones of 64 bits."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="after")
    def _fits_in_64_bits(self) -> "Config":
        # Python's integers have no end; those of Arrow, torch and MLflow have.
        for name, value in self:
            if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
                raise ValueError(f"{name} between -2^63 and 2^63 - 1")
        return self

    def outside(self) -> Iterator[Outside]:
        """What this config and those in it name that lies outside the recipe; a class with such a field adds to it.

        Of engines, the models of those that the stage opens.
        """
        for name in type(self).model_fields:
            value: Any = getattr(self, name)
            parts = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value,)
            for part in parts:
                if isinstance(part, Config):
                    yield from part.outside()
        for use in self.engines():
            yield from use.engine.weights()

    def engines(self) -> tuple[Any, ...]:
        """The generation engines (`qwenops.generation.config.EngineUse`) that the stage opens with this config."""
        return ()

    def unreached(self) -> tuple[str, ...]:
        """Functions, as `module:name`, that the stage's `run` calls but not with this config."""
        return ()
