"""`Slice`: the part of a recipe that one node needs, as a value."""

from typing import Generic, TypeVar

from pydantic import SerializeAsAny

from qwenops.recipe.config import Config

C = TypeVar("C", bound=Config)


class Slice(Config, Generic[C]):
    """What one node is to do: its name, the run's seed and the stage's own config.

    Made from a recipe by `schema.resolve`; a process that gets it as text decodes `Slice[<the stage's config class>]`.
    """

    node: str
    seed: int
    config: SerializeAsAny[C]
