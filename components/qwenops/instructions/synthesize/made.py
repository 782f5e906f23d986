"""What one strategy made, and how much of what it looked at it accepted."""

from dataclasses import dataclass, field

from qwenops.contracts.conversation import Conversation
from qwenops.contracts.preference import Preference


@dataclass
class Made:
    """Rows of one strategy.

    Attributes:
        demonstrations: Accepted answers.
        preferences: Pairs.
        judged: Responses judged.
        accepted: Responses found good.
        notes: Sentences for the summary.
    """

    demonstrations: list[Conversation] = field(default_factory=list[Conversation])
    preferences: list[Preference] = field(default_factory=list[Preference])
    judged: int = 0
    accepted: int = 0
    notes: list[str] = field(default_factory=list[str])

    @property
    def share(self) -> float:
        """Share of judged responses that were accepted."""
        return self.accepted / max(self.judged, 1)
