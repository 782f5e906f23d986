"""What one strategy made, and how much of what it looked at it accepted."""

from collections import Counter
from dataclasses import dataclass, field

from qwenops.contracts.conversation import Conversation
from qwenops.contracts.preference import Preference


@dataclass
class SynthesisResult:
    """Rows of one strategy.

    Attributes:
        demonstrations: Accepted answers.
        preferences: Pairs.
        judged: Responses judged.
        accepted: Responses found good.
        unfinished: Answers of a model that were "cut" at the token limit or "lost"; those that were judged count
            among the judged.
        notes: Sentences for the summary.
    """

    demonstrations: list[Conversation] = field(default_factory=list[Conversation])
    preferences: list[Preference] = field(default_factory=list[Preference])
    judged: int = 0
    accepted: int = 0
    unfinished: Counter[str] = field(default_factory=Counter[str])
    notes: list[str] = field(default_factory=list[str])

    @property
    def share(self) -> float:
        """Share of judged responses that were accepted."""
        return self.accepted / max(self.judged, 1)
