"""`Config`: the frozen, strict base of every stage's configuration.

Frozen because a config is a value; strict and closed because a key in the wrong place must be an error
and never a silent default. Every field carries a description that ends with its source: a section mark
of the Qwen2 report or the words "house choice:" and why (a test reads them).
"""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Base of all configs: frozen, strict, unknown keys refused, finite numbers only."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
