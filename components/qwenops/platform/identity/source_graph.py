"""What a stage's `run` reaches of this package: definitions, the data files they name, the libraries they import.

Whole modules would be too coarse: DPO's loss lies beside the one of pre-training. So the graph's nodes are top-level
definitions and its edges the names that stand in them; nothing is imported to find them. What cannot be seen counts as
reached: a module that is used as a value or imported by a literal name counts whole, a package whose path is written
out with all its modules, and statements that act on import
count with every module that imports theirs, however far away.
"""

import os
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter

from qwenops.errors import StageError
from qwenops.platform.identity import definitions
from qwenops.platform.identity.definitions import Definition, Module, digest_of, read_module

_NO_DATA = ("", ".pyc", ".md", ".typed")
_MOST_KEPT = 4000


@dataclass(frozen=True)
class Reach:
    """Path of each file that counts to the digest of what counts in it, and the top-level libraries imported there."""

    files: Mapping[str, str]
    libraries: frozenset[str]


class SourceGraph:
    """All modules and data files of one package, as they are when this is made.

    Args:
        package: Its name.
        folders: Where it lies.
        kept: File that keeps modules by the digest of their text, so that only changed ones are parsed; None for none.
    """

    def __init__(self, package: str, folders: Iterable[Path], kept: Path | None = None) -> None:
        self._kept = _Kept(kept)
        self._texts: dict[str, tuple[str, bytes]] = {}
        self._data: dict[str, str] = {}
        self._endings: dict[str, list[str]] = {}
        self._modules: dict[str, Module] = {}
        for folder in folders:
            for path in _files_below(folder):
                relative = path.relative_to(folder).as_posix()
                if path.suffix == ".py":
                    self._texts[_module_name(package, relative)] = relative, path.read_bytes()
                elif path.suffix not in _NO_DATA:
                    self._add_data(relative, path)

    def reach(self, roots: Iterable[str], leaves: Iterable[str] = (), without: Iterable[str] = ()) -> Reach:
        """What is reached from `roots`.

        Args:
            roots: `module:name` of the definitions to begin with.
            leaves: Definitions that count and are not followed.
            without: Definitions, or whole modules as `module:`, that neither count nor are followed.
        """
        walk = _Walk(self, frozenset(leaves), frozenset(without))
        walk.run([*roots, *leaves])
        self._kept.save()
        files = {self._texts[name][0]: digest_of(*sorted(parts)) for name, parts in walk.found.items()}
        return Reach(files | {path: self._data[path] for path in walk.data}, frozenset(walk.libraries))

    def module(self, name: str) -> Module:
        """The module `name`, parsed when it is first asked for.

        Raises:
            StageError: its file is no Python.
        """
        if name not in self._modules:
            relative, text = self._texts[name]
            try:
                self._modules[name] = self._kept.module(name, relative, text)
            except (SyntaxError, ValueError) as error:
                raise StageError(
                    f"cannot read {relative} of qwenops",
                    expected="Python of this version",
                    found=error,
                    action="mend the file, or install qwenops again",
                ) from None
        return self._modules[name]

    def holds(self, name: str) -> bool:
        """Whether the package has a module of that name."""
        return name in self._texts

    def modules_named(self, place: str) -> list[str]:
        """The module that a literal names, or where it is a path, those of the folder: a script may be told any."""
        if "/" in place:
            folder = place.replace("/", ".") + "."
            return [name for name in self._texts if name.startswith(folder)]
        return [place] if place in self._texts else []

    def data_named(self, place: str) -> list[str]:
        """The data files whose path is `place` or ends in it."""
        return self._endings.get(place, [])

    def _add_data(self, relative: str, path: Path) -> None:
        self._data[relative] = digest_of(path.read_bytes())
        parts = relative.split("/")
        for start in range(len(parts)):
            self._endings.setdefault("/".join(parts[start:]), []).append(relative)


class _Walk:
    """One way through the graph."""

    def __init__(self, graph: SourceGraph, leaves: frozenset[str], without: frozenset[str]) -> None:
        self._graph, self._leaves, self._without = graph, leaves, without
        self.found: dict[str, set[str]] = {}
        self.data: set[str] = set()
        self.libraries: set[str] = set()
        self._loaded: set[str] = set()
        self._seen: set[str] = set()
        self._waiting: list[str] = []

    def run(self, roots: Iterable[str]) -> None:
        """Follow the roots, and what they use, until nothing is left."""
        self._add(roots)
        while self._waiting:
            module, _, dotted = self._waiting.pop().partition(":")
            if self._graph.holds(module):
                self._load(module)
                self._resolve(module, dotted)
            elif module not in sys.stdlib_module_names:
                self.libraries.add(module)

    def _add(self, uses: Iterable[str]) -> None:
        new = set(uses) - self._seen
        self._seen |= new
        self._waiting += new

    def _resolve(self, name: str, dotted: str) -> None:
        module = self._graph.module(name)
        head, _, rest = dotted.partition(".")
        if head in module.definitions:
            self._take(name, head)
        elif head in module.bound:
            target = module.bound[head]
            separator = "." if rest and not target.endswith(":") else ""
            self._add([target + separator + rest])
        elif head and self._graph.holds(f"{name}.{head}"):
            self._add([f"{name}.{head}:{rest}"])
        else:
            # The module itself, or a name that is bound while it runs.
            for own in module.definitions:
                self._take(name, own)
            self._add(module.bound.values())
            self._add(source for source in module.loads if source.endswith(":"))

    def _take(self, module: str, own: str) -> None:
        key, definition = f"{module}:{own}", self._graph.module(module).definitions[own]
        if key in self._without or f"{module}:" in self._without:
            return
        self.found.setdefault(module, set()).add(f"{own} {definition.digest}")
        if key not in self._leaves:
            self._follow(definition)

    def _follow(self, definition: Definition) -> None:
        self._add(definition.uses)
        for place in definition.places:
            self.data.update(self._graph.data_named(place))
            self._add(f"{name}:" for name in self._graph.modules_named(place))

    def _load(self, name: str) -> None:
        """Count what acts when a module is imported: in it, in its packages, and in all that these import."""
        waiting = [name]
        while waiting:
            name = waiting.pop().rstrip(":")
            if name in self._loaded or not self._graph.holds(name):
                continue
            self._loaded.add(name)
            module = self._graph.module(name)
            for effect in module.effects:
                self.found.setdefault(name, set()).add(effect.digest)
                self._follow(effect)
            waiting += [*module.loads, name.rpartition(".")[0]]


@dataclass(frozen=True)
class _KeptFile:
    """What the file of `_Kept` holds: what wrote it, and modules by the digest of their name and text."""

    rules: str
    modules: dict[str, Module]


_KEPT_FILE = TypeAdapter(_KeptFile)


class _Kept:
    """Modules by the digest of their name and text, in a file that outlives the process."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._modules: dict[str, Module] = {}
        self._new: dict[str, Module] = {}
        # Another Python has another syntax tree; another reader finds other names in it.
        self._rules = digest_of(sys.version, Path(definitions.__file__).read_bytes())
        if path is None:
            return
        try:
            found = _KEPT_FILE.validate_json(path.read_bytes())
        except (OSError, ValueError):
            return  # There is none yet, or something else wrote it: every module is parsed.
        if found.rules == self._rules:
            self._modules = found.modules

    def module(self, name: str, relative: str, text: bytes) -> Module:
        """The module of that text, from the file where it is there."""
        key = digest_of(name, text)
        if key in self._modules:
            return self._modules[key]
        module = self._new[key] = _parsed(text, name, relative.endswith("__init__.py"))
        return module

    def save(self) -> None:
        """Write what is new; a folder that cannot be written costs the next process the parsing and nothing else."""
        if self._path is None or not self._new:
            return
        self._modules = self._new if len(self._modules) > _MOST_KEPT else self._modules | self._new
        self._new = {}
        draft = self._path.with_suffix(f".{uuid.uuid4().hex}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(_KEPT_FILE.dump_json(_KeptFile(self._rules, self._modules)))
            draft.replace(self._path)
        except OSError:
            self._path = None


@lru_cache(maxsize=_MOST_KEPT)
def _parsed(text: bytes, name: str, is_package: bool) -> Module:
    return read_module(text.decode(), name, is_package=is_package)


def _files_below(folder: Path) -> Iterator[Path]:
    for place, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if name != "__pycache__")
        yield from (Path(place) / name for name in sorted(files))


def _module_name(package: str, relative: str) -> str:
    parts = relative.removesuffix(".py").split("/")
    return ".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)])
