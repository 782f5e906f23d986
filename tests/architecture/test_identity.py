"""What decides a stage's output can be seen: configs give what they name, code names what it reads and imports."""

import ast
import re

import pytest
from tests.architecture.places import LIBRARY, SOURCES
from tests.architecture.test_configs import config_classes

from qwenops.generation.config import EngineConfig
from qwenops.platform.identity.outside import library_version
from qwenops.platform.identity.source_graph import SourceGraph
from qwenops.recipe.config import Config
from qwenops_pipelines.dags.nodes import NODES

# How a description begins whose field names something outside the recipe.
_OUTSIDE = re.compile(r"\b(folders?|files?|JSON lines|JSONL|form|id of the data set|model whose)\b", re.IGNORECASE)
_NAMES_NOTHING = {"license"}
# Installed on GPUs alone.
_OPTIONAL = {"vllm"}
# What runs and identifies stages; no stage reaches it.
_RUNNERS = {"sources.py", "outside.py", "stage_server.py", "produce.py"}
DATA = sorted(path for path in LIBRARY.rglob("*.*") if path.suffix in (".json", ".html"))


def fields_outside() -> list[tuple[type[Config], str]]:
    return [
        (config, name)
        for config in config_classes()
        for name, field in config.model_fields.items()
        if field.annotation in (str, tuple[str, ...]) and name not in _NAMES_NOTHING
        if _OUTSIDE.search(re.split(r"; |\. ", field.description or "")[0])
    ]


def test_fields_that_name_something_outside_are_found():
    assert len(fields_outside()) >= 15


@pytest.mark.parametrize(
    ("config", "field"), fields_outside(), ids=lambda it: it if isinstance(it, str) else it.__name__
)
def test_config_gives_what_the_field_names(config, field):
    needed = {name: "x" for name, item in config.model_fields.items() if item.is_required()}
    several = config.model_fields[field].annotation is not str
    made = config.model_construct(**(needed | {field: ("/outside/here",) if several else "/outside/here"}))
    things = [*made.outside(), *(made.weights() if isinstance(made, EngineConfig) else ())]
    assert any(thing.name.startswith("/outside/here") for thing in things)


def calls(path, name):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and name in (getattr(node.func, "id", ""), getattr(node.func, "attr", ""))
    ]


def test_code_that_a_stage_reaches_imports_by_literal_names():
    found = [path for path in SOURCES if path.is_relative_to(LIBRARY) and path.name not in _RUNNERS]
    computed = [
        (path.name, call.lineno)
        for path in found
        for call in calls(path, "import_module")
        if not isinstance(call.args[0], ast.Constant)
    ]
    assert computed == []


def test_every_data_file_of_the_package_is_named_by_a_literal():
    texts = [path.read_text(encoding="utf-8") for path in SOURCES if path.is_relative_to(LIBRARY)]
    assert DATA
    assert [path.name for path in DATA if not any(f'"{path.name}"' in text for text in texts)] == []


def test_every_library_that_a_stage_reaches_has_a_version():
    graph = SourceGraph("qwenops", [LIBRARY])
    reached = {name for node in NODES for name in graph.reach([f"qwenops.{node.stage}.run:run"]).libraries}
    assert {"torch", "transformers", "sklearn", "pyarrow"} <= reached
    assert {name for name in reached if not library_version(name)} <= _OPTIONAL
