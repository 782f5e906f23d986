"""JSON that every reader takes: a number that is none is null, and whoever writes it can say where it stood.

Python writes NaN and Infinity, which JSON does not have; a strict reader (a browser, `jq`, Go) refuses the whole file.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

_WORDS = (b"NaN", b"Infinity")
_MOST_NAMED = 3


def replace_not_finite(value: Any) -> Any:
    """Plain data with None for every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: replace_not_finite(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [replace_not_finite(item) for item in cast("list[Any]", value)]
    return value


def find_not_finite(value: Any, path: str = "") -> Iterator[str]:
    """Dotted path and number of each that is not finite: "history.2.kl is nan"."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{path} is {value}"
    parts: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(value, Mapping):
        parts = iter(cast("Mapping[Any, Any]", value).items())
    elif isinstance(value, list | tuple):
        parts = iter(enumerate(cast("list[Any]", value)))
    for name, item in parts:
        yield from find_not_finite(item, f"{path}.{name}" if path else str(name))


def mend_json_files(folder: Path, warn: Callable[[str], None]) -> None:
    """Make every `.json` and `.jsonl` file below `folder` valid: null for what is no finite number, and a warning.

    Args:
        folder: Looked at as a whole.
        warn: Told of each file which values of it are null, by path, after the line where it has several.
    """
    for path in sorted(folder.rglob("*.json*")):
        if path.suffix not in (".json", ".jsonl") or not path.is_file():
            continue
        found = _mended(path)
        if found:
            more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
            said = ", ".join(found[:_MOST_NAMED]) + more
            warn(f"{path.relative_to(folder)}: {said}, no finite number, and is null")


def _mended(path: Path) -> list[str]:
    """What is no finite number in the file, which is written anew where there is any."""
    several, found = path.suffix == ".jsonl", list[str]()
    draft = path.with_name(f".{path.name}.mended")
    with path.open("rb") as stream, draft.open("wb") as written:
        for number, part in enumerate(stream if several else [stream.read()]):
            text, inside = _valid(part, f"{number}" if several else "", indent=None if several else 1)
            written.write(text)
            found += inside
    if found:
        draft.replace(path)
    else:
        draft.unlink()
    return found


def _valid(text: bytes, where: str, *, indent: int | None) -> tuple[bytes, list[str]]:
    if not any(word in text for word in _WORDS):
        return text, []
    try:
        value = json.loads(text)
    except ValueError:
        return text, []  # Not JSON at all is another contract's business.
    found = list(find_not_finite(value, where))
    if not found:
        return text, []
    mended = json.dumps(replace_not_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return mended.encode() + (b"\n" if text.endswith(b"\n") else b""), found
