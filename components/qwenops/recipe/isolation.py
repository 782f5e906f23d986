"""How programs that a model wrote are confined; a recipe names it, the sandbox obeys."""

from typing import Literal

Isolation = Literal["bubblewrap", "none_at_own_risk"]
"""The fence of the sandbox, or by name that programs run without one, with this process's own rights."""
