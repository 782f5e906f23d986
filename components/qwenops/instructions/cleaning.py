"""Keep evaluation items out of instructions, demonstrations and preferences, by the rule that cleans documents.

Report: section 5.2.6 applies one rule to pre-training and post-training data. Rows are looked at where they are made,
because models write many of them and models know benchmarks by heart.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

from qwenops.contracts.conversation import Conversation
from qwenops.contracts.preference import Preference
from qwenops.platform.stage.handle import Stage
from qwenops.tasks.config import OverlapConfig
from qwenops.tasks.decontamination import open_index, reason_of
from qwenops.tasks.evalsets import leaks_of, load_available

Row = TypeVar("Row")


class Cleaner:
    """Drops rows that contain evaluation items, and counts them.

    Args:
        config: The rule; None, where a stage runs by itself, drops nothing and warns.
        stage: Receives a warning for each set that cannot be had.

    Attributes:
        dropped: Rows dropped so far, by reason word.
    """

    def __init__(self, config: OverlapConfig | None, stage: Stage) -> None:
        self.dropped: Counter[str] = Counter()
        self._stage, self._index = stage, None
        if config is None:
            stage.warn("rows are not cleaned of evaluation sets: the config has no decontamination")
            return
        available = load_available(config.sets, config.folder, stage.context.cache_folder("evalsets"))
        for sentence in available.missing.values():
            stage.warn(f"rows are not cleaned of {sentence}")
        self._index = open_index(config, leaks_of(available.items))

    def conversations(self, rows: Iterable[Conversation]) -> list[Conversation]:
        """The rows without evaluation items in any of their messages."""
        return self.keep(rows, lambda row: "\n".join(message["content"] for message in row.messages))

    def preferences(self, rows: Iterable[Preference]) -> list[Preference]:
        """The pairs without evaluation items in prompt or responses."""
        return self.keep(
            rows, lambda row: "\n".join([*(turn["content"] for turn in row.prompt), row.chosen, row.rejected])
        )

    def keep(self, rows: Iterable[Row], text_of: Callable[[Row], str]) -> list[Row]:
        """The rows whose text holds no evaluation item."""
        kept: list[Row] = []
        for row in rows:
            reason = reason_of(self._index.matches(text_of(row))) if self._index else ""
            if reason:
                self.dropped[reason] += 1
            else:
                kept.append(row)
        return kept

    def report(self) -> None:
        """Give the stage a metric for each set that dropped rows."""
        for reason, count in sorted(self.dropped.items()):
            self._stage.metric(f"contaminated.{reason.removeprefix('contains_')}", count)
