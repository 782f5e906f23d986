"""Rules about source text that a linter does not have."""

import ast
import re
from pathlib import Path

import pytest
from tests.architecture.places import LIBRARY, PIPELINES, ROOT, SOURCES

from qwenops.contracts.metrics import METRICS, find_metric

_MARK = re.compile(r"\b(TODO|FIXME|XXX)\b")
# Kubeflow serialises a component's body, an accelerator or a fence may be missing, a start is slow: these import late.
_IMPORTS_INSIDE = ("component.py", "vllm_engine.py", "confinement.py", "protocol.py")
_READS_ENVIRONMENT = re.compile(r"\bos\.(getenv|environ(\[|\.get))")
_FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "misc", "manager"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_unfinished_work_carries_a_link(path: Path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if _MARK.search(line) and "http" not in line] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_says_what_it_is_for(path: Path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_no_module_is_named_after_nothing():
    assert [path for path in SOURCES if _FORBIDDEN_NAMES & set(path.with_suffix("").parts[-2:])] == []


def test_imports_stand_at_the_top_or_say_what_they_save():
    inside: list[str] = []
    for path in (path for path in LIBRARY.rglob("*.py") if path.name not in _IMPORTS_INSIDE):
        lines = path.read_text(encoding="utf-8").splitlines()
        for function in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                found = [node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
                above = [lines[node.lineno - 2].strip() for node in found]
                silent = [node for node, line in zip(found, above, strict=True) if not line.startswith(("#", "from"))]
                inside += [f"{path.relative_to(ROOT)}:{node.lineno}" for node in silent]
    assert inside == []


def test_library_does_not_print_outside_its_terminals():
    speaking = LIBRARY / "platform"
    printing = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in LIBRARY.rglob("*.py")
        if path.name != "chat.py" and (speaking / "sandbox" in path.parents or speaking not in path.parents)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


def metric_names() -> list[tuple[str, str]]:
    """(place, name) of each `stage.metric(...)` with a written name; parts filled in at run time read "x"."""
    found: list[tuple[str, str]] = []
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "metric":
                name = _written(node.args[0]) if node.args else ""
                if name:
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno}", name))
    return found


def test_recorded_metrics_are_listed():
    names = metric_names()
    assert len(names) > 50
    # A part in front may be empty: `f"{prefix}refusal_rate"` is both `before.refusal_rate` and `refusal_rate`.
    unlisted = [pair for pair in names if not find_metric(pair[1]) and not find_metric(pair[1].removeprefix("x"))]
    assert unlisted == []


def test_listed_metrics_have_a_unit_and_a_meaning():
    assert [m.pattern for m in METRICS if not (m.unit and m.meaning)] == []
    assert len({m.pattern for m in METRICS}) == len(METRICS)


def test_platform_is_the_only_reader_of_the_environment():
    readers = [
        str(path.relative_to(ROOT))
        for path in LIBRARY.rglob("*.py")
        if LIBRARY / "platform" not in path.parents and _READS_ENVIRONMENT.search(path.read_text(encoding="utf-8"))
    ]
    assert readers == []


def test_component_and_pipeline_folders_are_no_packages():
    assert not (LIBRARY.parent / "__init__.py").exists()
    assert not (PIPELINES.parent / "__init__.py").exists()


def _written(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "x" for part in node.values]
        # A name that is nothing but a filled-in part is checked when it is recorded.
        return "".join(map(str, parts)) if any(isinstance(part, ast.Constant) for part in node.values) else ""
    return ""
