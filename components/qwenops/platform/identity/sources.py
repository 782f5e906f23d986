"""What makes a stage's output what it is, beside its config and its inputs: code, libraries, things outside.

`Sources.causes` is the one answer, and three things are made from it: the fingerprint by which finished work is reused,
the key of Kubeflow's cache, and the `code_version` that MLflow shows. It is kept in the manifest by cause, so that a
later run can say in words what changed.
"""

import importlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import qwenops
from qwenops.contracts.manifest import Manifest
from qwenops.errors import RecipeError
from qwenops.platform.identity.definitions import digest_of
from qwenops.platform.identity.outside import digest_outside, library_version
from qwenops.platform.identity.source_graph import SourceGraph
from qwenops.recipe.codec import Plain, canonical
from qwenops.recipe.config import Config
from qwenops.recipe.outside import Outside

# What a stage is given: it counts, but not all that it calls, which checks and shows what the stage reports.
_GIVEN = ("qwenops.platform.stage.handle:Stage",)
# Where a stage runs and who watches it; by their own contracts they change nothing that it makes.
_WATCHING = tuple(
    f"qwenops.platform.{name}:" for name in ("context", "logs", "observe.observed", "secrets", "termination")
)
# Libraries that compute below those that a stage imports itself.
_BELOW = {
    "transformers": ("tokenizers", "safetensors"),
    "trafilatura": ("lxml", "justext", "htmldate"),
    "pandas": ("numpy",),
    "sklearn": ("numpy", "scipy"),
    "lightgbm": ("numpy",),
    "mlxtend": ("pandas", "numpy"),
}


class Sources:
    """The package's code as it is on disk when this is made.

    Args:
        cache: Folder for what need not be computed twice.
        folders: Where the package lies; None: where it is imported from.
        tracking_uri: Where this run registers models.
    """

    def __init__(self, cache: Path, folders: Iterable[Path] | None = None, *, tracking_uri: str = "") -> None:
        self._cache, self._tracking_uri = cache, tracking_uri
        places = [Path(place) for place in qwenops.__path__] if folders is None else folders
        self._versions: dict[str, str] = {}
        self._graph = SourceGraph("qwenops", places, cache / "identity" / "modules.json")

    def causes(self, stage: str, config: Config) -> dict[str, str]:
        """What the output of a stage follows from, beside its config and inputs.

        Args:
            stage: Dotted place below `qwenops`, for example "data.dedup".
            config: Its config.

        Returns:
            Path of a file of the package, name of a library, or name of a thing outside, to its digest or version.
        """
        place = f"qwenops.{stage}"
        roots = (f"{place}.run:run", f"{place}.config:{type(config).__name__}")
        reach = self._graph.reach(roots, _GIVEN, (*_WATCHING, *config.unreached()))
        names = {below for name in reach.libraries for below in (name, *_BELOW.get(name, ()))}
        versions = {name: version for name in sorted(names) if (version := self._version(name))}
        outside = {thing.name: self._digest(thing) for thing in config.outside()}
        python = ".".join(map(str, sys.version_info[:2]))
        return {**reach.files, **versions, **outside, "python": python}

    def _digest(self, thing: Outside) -> str:
        # A model that is registered at one address is not at another.
        return digest_of(self._tracking_uri) if thing.kind == "registry" else digest_outside(thing, self._cache)

    def _version(self, library: str) -> str:
        if library not in self._versions:
            self._versions[library] = library_version(library)
        return self._versions[library]


def config_class(stage: str) -> type[Config]:
    """The class of a stage's config, by the dotted place of the stage below `qwenops`.

    Raises:
        RecipeError: the stage has none of that name.
    """
    module = importlib.import_module(f"qwenops.{stage}.config")
    name = "".join(part.title() for part in stage.split(".")[-1].split("_")) + "Config"
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, Config)):
        raise RecipeError(f"{module.__name__} has no {name}", expected=name, action="name the config after its folder")
    return found


def version_of(causes: Mapping[str, str]) -> str:
    """Package version and digest of the causes, for example "0.1.0+3f9a1c02b6d4"."""
    return f"{qwenops.__version__}+{digest_of(canonical(dict(causes)))[:12]}"


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What changed between two sets of causes, a phrase each: "training/loss.py changed", "torch 2.12 is now 2.13"."""
    found = [_changed(name, before[name], now[name]) for name in sorted(before.keys() & now.keys())]
    found += [f"{name} counts now" for name in sorted(now.keys() - before.keys())]
    found += [f"{name} counts no more" for name in sorted(before.keys() - now.keys())]
    return [phrase for phrase in found if phrase]


def reasons(
    earlier: Manifest, causes: Mapping[str, str], config: Mapping[str, Any], parents: Mapping[str, str]
) -> list[str]:
    """Why a task is not the one that made `earlier`, a phrase each; none where it differs in what is yet to be made.

    Args:
        earlier: An artifact of the node.
        causes: What the task's output follows from.
        config: Its config.
        parents: Input name to the id of what it reads, as far as that is there.
    """
    found = differences(earlier.causes, causes) if earlier.causes else ["an earlier version of qwenops made it"]
    found += [f"{path} changed" for path in _paths(earlier.config, config)]
    return found + [f"its {name} is another" for name, parent in parents.items() if earlier.parents[name] != parent]


def _changed(name: str, before: str, now: str) -> str:
    if before == now:
        return ""
    return f"{name} {before} is now {now}" if _is_version(before) and _is_version(now) else f"{name} changed"


def _is_version(word: str) -> bool:
    return "." in word and word[0].isdigit()


def _paths(before: Plain, now: Plain, path: str = "") -> list[str]:
    """Dotted paths at which two plain values differ."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return [
            found
            for name in sorted({*before, *now})
            for found in _paths(before.get(name), now.get(name), f"{path}.{name}" if path else name)
        ]
    return [] if before == now else [path]
