"""The four families of error, each with one meaning for whoever operates a run.

A message has three parts: what was expected, what was found, what to do. The family decides the exit
status, and through it whether a retry is worth trying: only `PlatformError` is.
"""

from typing import ClassVar


class QwenOpsError(Exception):
    """Base of every error this project raises on purpose.

    Args:
        message: What went wrong, in one sentence, with the place (path, field, row or rank).
        expected: What would have been right.
        found: The value that was found instead.
        action: What the reader should do next.
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, expected: str = "", found: object = "", action: str = "") -> None:
        self.message, self.expected, self.found, self.action = message, expected, str(found), action
        parts = [message]
        parts += [f"expected: {expected}"] if expected else []
        parts += [f"found: {found}"] if str(found) else []
        parts += [f"what to do: {action}"] if action else []
        super().__init__("\n  ".join(parts))


class RecipeError(QwenOpsError):
    """The recipe is wrong: edit it."""

    exit_status: ClassVar[int] = 2


class ContractError(QwenOpsError):
    """A producer made data that breaks its contract: mend the data and re-run the producer."""

    exit_status: ClassVar[int] = 3


class StageError(QwenOpsError):
    """A stage failed at its own work."""

    exit_status: ClassVar[int] = 4


class PlatformError(QwenOpsError):
    """Cluster, storage or network failed; a retry may help."""

    exit_status: ClassVar[int] = 5


FAMILIES: dict[str, type[QwenOpsError]] = {
    family.__name__: family for family in (RecipeError, ContractError, StageError, PlatformError)
}
