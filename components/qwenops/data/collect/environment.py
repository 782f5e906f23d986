"""Read the installed environment: Python files, and the English prose of their docstrings.

This is the source that is always there: tens of megabytes of code and prose under open licences, on any machine
that can run the project.
"""

import ast
import importlib.metadata
import importlib.util
import inspect
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

_SKIPPED = frozenset({"test", "tests", "idlelib", "site-packages", "__pycache__", "_vendor", "vendored", "lib2to3"})
_MIN_DOCSTRING_CHARACTERS = 80
_MIN_PAGE_CHARACTERS = 300
_MIN_QUOTES = 8  # opening and closing ones: four docstrings
_STDLIB = "stdlib"


def python_files(package: str) -> list[tuple[str, Path]]:
    """The Python files of an installed package as (address, path); tests and vendored copies are left out.

    Returns:
        An empty list when the package is not installed.
    """
    roots = _roots(package)
    found: list[tuple[str, Path]] = []
    for root in roots:
        files = root.rglob("*.py") if root.is_dir() else [root]
        for path in files:
            relative = path.relative_to(root.parent)
            if not _SKIPPED & set(relative.parts[1 if package != _STDLIB else 0 :]):
                found.append((f"python://{package}/{path.relative_to(root) if root.is_dir() else path.name}", path))
    return sorted(found)


def package_license(package: str) -> str:
    """Licence of an installed package as its metadata states it, shortened to one line."""
    if package == _STDLIB or not (names := _distributions().get(package)):
        return "PSF-2.0"
    facts = importlib.metadata.metadata(names[0])
    stated = (*(facts.get_all("License-Expression") or ()), *(facts.get_all("License") or ()))
    classifiers = [c.split(" :: ")[-1] for c in facts.get_all("Classifier") or [] if c.startswith("License ::")]
    return next((text.strip().splitlines()[0][:80] for text in (*stated, *classifiers) if text.strip()), "unknown")


def docstring_page(source: str, name: str) -> str:
    """The docstrings of a module as one text, in file order; '' when there is too little.

    Raises:
        SyntaxError: the file is not Python of this version.
        ValueError: the file holds null bytes.
        RecursionError: the file is nested too deeply for the parser.
    """
    if source.count('"""') < _MIN_QUOTES:
        return ""  # parsing is most of the cost, and these files have next to no prose
    pieces = [name, *_docstrings(ast.parse(source))]
    text = "\n\n".join(pieces)
    return text if len(text) >= _MIN_PAGE_CHARACTERS and len(pieces) > 1 else ""


def _docstrings(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    text = ast.get_docstring(node, clean=False)
    if text and len(text) >= _MIN_DOCSTRING_CHARACTERS:
        title = f"{node.name}\n\n" if not isinstance(node, ast.Module) else ""
        yield title + inspect.cleandoc(text)
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(child)


@cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _roots(package: str) -> list[Path]:
    if package == _STDLIB:
        return [Path(sysconfig.get_paths()["stdlib"])]
    spec = importlib.util.find_spec(package)
    if spec is None:
        return []
    if spec.submodule_search_locations:
        return [Path(place) for place in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin and spec.origin.endswith(".py") else []
