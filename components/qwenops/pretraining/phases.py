"""Lengths, steps and needle rows of a pretraining phase, without torch: recipes read them."""

import math
from collections.abc import Sequence

from pydantic import Field

from qwenops.recipe.config import Config


class Phase(Config):
    """Some steps at one sequence length."""

    length: int = Field(default=4096, ge=32, description="Tokens per row, §3.2.")
    steps: int = Field(default=1000, ge=1, description="Optimiser steps at this length; house choice: set per recipe.")


def row_divisor(phases: Sequence[Phase]) -> int:
    """Largest number that divides the rows of every phase: what a context dimension must divide."""
    return math.gcd(*(phase.length for phase in phases))


class Practice(Config):
    """How many rows practise retrieval, and how much their answers weigh."""

    needle_share: float = Field(
        default=0.0, ge=0, le=1, description="Share of rows that hide a needle; house choice: 0, tiny recipes need it."
    )
    answer_weight: float = Field(
        default=8.0,
        ge=0,
        description="Loss weight of a needle's digits; house choice: they are 5 targets of a whole row.",
    )
