"""The contamination rule as a config states it, for documents and instructions alike."""

from collections.abc import Iterable

from qwenops.tasks.config import OverlapConfig
from qwenops.tasks.overlap import Leak, Match, OverlapIndex


def open_index(config: OverlapConfig, leaks: Iterable[Leak]) -> OverlapIndex:
    """An index that follows the rule of `config`."""
    return OverlapIndex(
        leaks, length=config.ngram_words, min_share=config.min_share, rule=config.rule, short_items=config.short_items
    )


def reason_of(matches: list[Match]) -> str:
    """The word for why a text goes, "contains_" and a set; "" for a text that stays."""
    return f"contains_{matches[0].task}" if matches else ""
