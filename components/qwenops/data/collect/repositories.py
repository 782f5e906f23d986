"""List the program files of source trees, each with its licence: its own SPDX line, or the nearest licence file's.

Vendored and generated folders are left out by name: they would count the same libraries once per project.
"""

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

ENDINGS = (
    *(".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".cu", ".ex", ".go", ".hs", ".java", ".jl", ".js", ".jsx", ".kt"),
    *(".lua", ".m", ".php", ".pl", ".proto", ".py", ".r", ".rb", ".rs", ".scala", ".sh", ".sql", ".swift", ".ts"),
    *(".tsx", ".zig"),
)
UNKNOWN = "unknown"
_SKIPPED = frozenset(
    {"node_modules", "vendor", "third_party", "external", "dist", "build", "target", "site-packages", "__pycache__"}
)
_HEAD_BYTES = 2048
_LICENSE_BYTES = 40_000
_SPDX = re.compile(rb"SPDX-License-Identifier:\s*([A-Za-z0-9.+() -]+?)\s*(?:\*/|-->|\r|\n|$)")
# What only the text of that licence says, most special first.
_PHRASES = (
    ("Apache-2.0", ("apache license", "version 2.0")),
    ("MPL-2.0", ("mozilla public license", "version 2.0")),
    ("AGPL-3.0", ("gnu affero general public license", "version 3")),
    ("LGPL-3.0", ("gnu lesser general public license", "version 3")),
    ("LGPL-2.1", ("gnu lesser general public license", "version 2.1")),
    ("GPL-3.0", ("gnu general public license", "version 3")),
    ("GPL-2.0", ("gnu general public license", "version 2")),
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "neither the name")),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms",)),
    ("MIT", ("permission is hereby granted, free of charge", "the above copyright notice and this permission notice")),
    ("ISC", ("permission to use, copy, modify, and/or distribute this software for any",)),
    ("Unlicense", ("this is free and unencumbered software released into the public domain",)),
)


def program_files(root: Path, endings: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """(path below `root`, file) of every file with one of the endings, hidden and vendored folders left out."""
    for place, names, files in os.walk(root):
        folder = Path(place)
        names[:] = sorted(name for name in names if not name.startswith(".") and name not in _SKIPPED)
        for name in sorted(files):
            path = folder / name
            if path.suffix.lower() in endings and not name.startswith(".") and path.is_file():
                yield path.relative_to(root).as_posix(), path


def license_of(path: Path, root: Path) -> str:
    """SPDX expression of a file's licence; "unknown" where neither it nor a folder up to `root` says one.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        stated = _SPDX.search(stream.read(_HEAD_BYTES))
    return stated.group(1).decode("ascii").strip() if stated else _license_of_folder(path.parent, root)


@lru_cache(maxsize=1 << 16)
def _license_of_folder(folder: Path, root: Path) -> str:
    for path in sorted(folder.iterdir()):
        if path.stem.upper() in ("LICENSE", "LICENCE", "COPYING", "UNLICENSE") and path.is_file():
            with path.open("rb") as stream:
                text = " ".join(stream.read(_LICENSE_BYTES).decode("utf-8", "replace").lower().split())
            return next((name for name, phrases in _PHRASES if all(p in text for p in phrases)), UNKNOWN)
    return UNKNOWN if folder == root else _license_of_folder(folder.parent, root)
