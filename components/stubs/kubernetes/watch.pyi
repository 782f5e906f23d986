from collections.abc import Callable, Iterator
from typing import Any, TypedDict

class Event(TypedDict):
    type: str
    object: Any

class Watch:
    def stream(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Iterator[Event]: ...
