"""A component is a thin wrapper: no line of it could have a bug."""

import ast
import importlib
from pathlib import Path

import pytest
from tests.architecture.places import LIBRARY, PIPELINES, STAGES, stage_name

COMPONENTS = sorted([*LIBRARY.rglob("component.py"), *PIPELINES.rglob("component.py")])
_MOST_STATEMENTS = 5
_LOGIC = (ast.For, ast.While, ast.If, ast.IfExp, ast.Try, ast.With, ast.JoinedStr, ast.ListComp)
# Cutting the recipe into slices returns one value per node, which needs a generator expression.


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("path", COMPONENTS, ids=lambda path: path.parent.name)
def test_component_is_a_docstring_and_at_most_five_plain_statements(path: Path):
    for function in functions(path):
        assert ast.get_docstring(function), f"{function.name} has nothing to show in the Kubeflow UI"
        assert len(function.body) - 1 <= _MOST_STATEMENTS
        assert [type(node).__name__ for node in ast.walk(function) if isinstance(node, _LOGIC)] == []


@pytest.mark.parametrize("path", COMPONENTS, ids=lambda path: path.parent.name)
def test_component_keeps_its_annotations_for_kubeflow(path: Path):
    assert "from __future__ import annotations" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", STAGES, ids=stage_name)
def test_stage_has_its_parts_under_their_names(folder: Path):
    assert {"config.py", "run.py", "component.py", "README.md"} <= {path.name for path in folder.iterdir()}
    module = importlib.import_module(f"qwenops.{stage_name(folder)}.config")
    assert "".join(part.title() for part in folder.name.split("_")) + "Config" in vars(module)
