"""The report's four criteria as numbers: tag diversity, semantic richness, complexity, intent completeness (4.1.1).

The report names the criteria and defines none of them; these definitions are house choices, two of them InsTag's.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from qwenops.contracts.conversation import Conversation
from qwenops.instructions.select.config import SelectConfig

_PLACEHOLDER = re.compile(r"\{\w*\}|<[A-Z_ ]{3,}>|\[(?:insert|your)[^\]]*\]|_{3,}|\bTODO\b", re.IGNORECASE)
_DANGLING = re.compile(r"\b(see (above|below)|as (above|shown)|attached (file|image)|previous answer)\b", re.I)
_ENDS = re.compile(r"[\w.!?:;)\]}\"'»”。！？：）%-]\s*$")


@dataclass(frozen=True)
class Scores:
    """One instruction's criteria.

    Attributes:
        diversity: Sum over its tags of 1 / (rows that carry the tag): what it alone adds to the pool's tags.
        richness: Sum of idf over its tags, so that rare tags count more.
        complexity: Number of its tags.
        completeness: Share of the completeness rules it passes.
        faults: Rules it fails.
    """

    diversity: float
    richness: float
    complexity: int
    completeness: float
    faults: tuple[str, ...]


def score_instructions(rows: Sequence[Conversation], config: SelectConfig) -> list[Scores]:
    """Score each instruction against the whole pool."""
    counts = Counter(tag for row in rows for tag in row.tags)
    scores: list[Scores] = []
    for row in rows:
        faults = find_faults(row.instruction, config)
        scores.append(
            Scores(
                diversity=sum(1 / counts[tag] for tag in row.tags),
                richness=sum(math.log(len(rows) / counts[tag]) for tag in row.tags),
                complexity=len(row.tags),
                completeness=1 - len(faults) / 4,
                faults=faults,
            )
        )
    return scores


def find_faults(instruction: str, config: SelectConfig) -> tuple[str, ...]:
    """Which of the four rules of a self-contained request the instruction breaks."""
    text = instruction.strip()
    rules = {
        "length": not config.min_characters <= len(text) <= config.max_characters,
        "placeholder": bool(_PLACEHOLDER.search(text)),
        "dangling_reference": bool(_DANGLING.search(text)),
        "unfinished": not _ENDS.search(text),
    }
    return tuple(name for name, is_broken in rules.items() if is_broken)
