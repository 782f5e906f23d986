"""The graph follows names the way Python does, and takes what it cannot see as reached."""

import pytest

from qwenops.errors import StageError
from qwenops.platform.identity.source_graph import SourceGraph

MODULES = {
    "__init__.py": "",
    "run.py": "{imports}\ndef run():\n    {body}\n",
    "tools/__init__.py": "from pkg.tools.inner import shown\n",
    "tools/inner.py": "LIMIT = 3\ndef shown():\n    return LIMIT\n"
    "def hidden():\n    return other()\ndef other():\n    return 1\n",
    "acting.py": "import json\njson.KIND = 1\nVALUE = 2\n",
    "registry.py": "KNOWN = {}\ndef register(f):\n    KNOWN[f.__name__] = f\n    return f\n",
    "plugin.py": "from pkg.registry import register\n@register\ndef plug():\n    return helper()\n"
    "def helper():\n    return 1\n",
    "guarded.py": "try:\n    from pkg.tools.inner import other as best\nexcept ImportError:\n    best = None\n",
    "typed.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg.tools.inner import hidden\n"
    "def use(x: 'hidden'):\n    return x\n",
    "annotated.py": "from pkg.tools.inner import other\ndef use(x: other) -> other:\n    return x\n",
    "data/words.json": "[]",
    "reading.py": "WORDS = open('words.json')\nREST = 1\n",
}


@pytest.fixture
def reach(tmp_path):
    def found(imports, body):
        for name, text in MODULES.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            text = text.format(imports=imports, body=body) if name == "run.py" else text
            path.write_text(text, encoding="utf-8")
        return SourceGraph("pkg", [tmp_path]).reach(["pkg.run:run"])

    return found


@pytest.fixture
def changed(tmp_path, reach):
    """Whether an edit of a module changes what `run` reaches."""

    def found(imports, body, module, old, new):
        before = reach(imports, body)
        path = tmp_path / module
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        return SourceGraph("pkg", [tmp_path]).reach(["pkg.run:run"]) != before

    return found


INNER = "tools/inner.py"


@pytest.mark.parametrize(
    ("imports", "body", "module", "old", "new", "counts"),
    [
        ("from pkg.tools.inner import shown", "return shown()", INNER, "LIMIT = 3", "LIMIT = 4", True),
        ("from pkg.tools.inner import shown", "return shown()", INNER, "return 1", "return 2", False),
        ("from pkg.tools.inner import hidden", "return hidden()", INNER, "return 1", "return 2", True),
        ("import pkg.tools.inner", "return pkg.tools.inner.shown()", INNER, "LIMIT = 3", "LIMIT = 4", True),
        ("import pkg.tools.inner", "return pkg.tools.inner.shown()", INNER, "return 1", "return 2", False),
        ("import pkg.tools.inner as it", "return it.hidden()", INNER, "return 1", "return 2", True),
        ("from pkg.tools import inner", "return inner.shown()", INNER, "return 1", "return 2", False),
        ("from pkg.tools import inner", "return vars(inner)", INNER, "return 1", "return 2", True),
        ("from pkg.tools import shown", "return shown()", INNER, "LIMIT = 3", "LIMIT = 4", True),
        ("from pkg.tools.inner import *", "return shown()", INNER, "LIMIT = 3", "LIMIT = 4", True),
        ("from .tools.inner import shown", "return shown()", INNER, "LIMIT = 3", "LIMIT = 4", True),
        ("", "from pkg.tools.inner import other; return other()", INNER, "return 1", "return 2", True),
        ("import importlib", "return importlib.import_module('pkg.tools.inner')", INNER, "return 1", "return 2", True),
        ("", "return f'from {x} import main', 'pkg/tools'", INNER, "return 1", "return 2", True),
        ("import pkg.acting", "return 1", "acting.py", "KIND = 1", "KIND = 2", True),
        ("from pkg.acting import VALUE", "return 1", "acting.py", "VALUE = 2", "VALUE = 3", False),
        (
            "import pkg.plugin\nfrom pkg.registry import KNOWN",
            "return KNOWN",
            "plugin.py",
            "return 1",
            "return 2",
            True,
        ),
        ("from pkg.guarded import best", "return best()", INNER, "return 1", "return 2", True),
        ("from pkg.typed import use", "return use(1)", INNER, "return other()", "return 5", False),
        ("from pkg.annotated import use", "return use(1)", INNER, "return 1", "return 2", False),
        ("from pkg.reading import WORDS", "return WORDS", "data/words.json", "[]", "[1]", True),
        ("from pkg.reading import REST", "return REST", "data/words.json", "[]", "[1]", False),
    ],
)
def test_edit_counts_when_it_can_change_what_runs(changed, imports, body, module, old, new, counts):
    assert changed(imports, body, module, old, new) == counts


def test_libraries_are_those_of_what_is_reached(reach):
    found = reach("import json\nimport torch.nn as nn\nimport pandas", "import numpy; return nn.Linear(1), numpy, json")
    assert found.libraries == {"torch", "numpy"}


def test_file_that_is_no_python_is_named(tmp_path):
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "run.py").write_text("def run(:\n")
    with pytest.raises(StageError, match=r"cannot read run\.py"):
        SourceGraph("pkg", [tmp_path]).reach(["pkg.run:run"])


@pytest.mark.parametrize("left", ["[]", "null", '{"rules": 1}', "half"])
def test_kept_modules_that_something_else_wrote_are_parsed_again(tmp_path, left):
    package, kept = tmp_path / "pkg", tmp_path / "modules.json"
    package.mkdir()
    (package / "run.py").write_text("def run(): return 1\n")
    expected = SourceGraph("pkg", [package], kept).reach(["pkg.run:run"])
    assert kept.is_file()
    kept.write_text(left)
    assert SourceGraph("pkg", [package], kept).reach(["pkg.run:run"]) == expected
    assert SourceGraph("pkg", [package], kept).reach(["pkg.run:run"]) == expected
