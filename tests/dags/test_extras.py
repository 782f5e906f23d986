"""The wheel without extras: each command works, or says in one message which extra it needs."""

import json
import re
import subprocess
import sys

import pytest
from tests.architecture.places import ROOT
from tests.dags.conftest import qwenops
from tests.dags.only_extra import only_extra

from qwenops_pipelines.extras import EXTRAS

RECORD = {"run_name": "night", "recipe": "smoke", "status": "succeeded", "seconds": 1.0, "stages": {}}
NEEDS = [
    (("plan", "smoke"), "data"),
    (("compile", "smoke", "--placement", "kind", "-o", "p.yaml"), "pipelines"),
    (("submit", "p.yaml"), "pipelines"),
    (("schedule", "p.yaml", "--cron", "0 0 0 * * *"), "pipelines"),
    (("run", "smoke", "--out", "RUN"), "data,evaluation,instructions,pipelines,platform,train"),
    (("chat", "."), "train"),
    (("review", "RUN"), "data"),
    (("upcycle", "a", "b"), "train"),
    (("doctor", "--cluster"), "platform"),
]


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return {"PYTHONPATH": str(only_extra("", tmp_path_factory.mktemp("bare")))}


@pytest.mark.parametrize(
    ("arguments", "extra"), NEEDS, ids=lambda value: value[0] if isinstance(value, tuple) else None
)
def test_command_that_needs_an_extra_names_it(bare, tmp_path, arguments, extra):
    (tmp_path / "run.json").write_text(json.dumps(RECORD))
    result = qwenops(*(str(tmp_path) if word == "RUN" else word for word in arguments), **bare)
    assert result.returncode == 5, result.stderr
    assert "Traceback" not in result.stderr
    assert f"pip install 'qwenops[{extra}]'" in result.stderr
    assert not list(tmp_path.glob("stages"))


def test_commands_that_need_none_work(bare, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(RECORD))
    for arguments in (("show", tmp_path), ("compare", tmp_path, tmp_path), ("placement", "kind"), ("--help",)):
        result = qwenops(*arguments, **bare)
        assert (result.returncode, result.stderr) == (0, ""), arguments


def test_doctor_lists_what_is_missing(bare):
    result = qwenops("doctor", **bare)
    assert result.returncode == 5
    for name in ("kfp", "torch", "ray", "pyarrow"):
        assert re.search(rf"missing +{name}  ->  .*{EXTRAS[name]}", result.stdout)


def test_every_library_that_is_imported_has_its_extra():
    code = (
        "import ast, pathlib, sys\n"
        "names = set()\n"
        "for path in [*pathlib.Path('components').rglob('*.py'), *pathlib.Path('pipelines').rglob('*.py')]:\n"
        "    for node in ast.walk(ast.parse(path.read_text())):\n"
        "        if isinstance(node, ast.Import): names |= {alias.name.partition('.')[0] for alias in node.names}\n"
        "        if isinstance(node, ast.ImportFrom) and not node.level: names.add(node.module.partition('.')[0])\n"
        "print(*sorted(names - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    # Of the stubs of Python itself: a type checker has them, and nothing imports them when it runs.
    own = {"qwenops", "qwenops_pipelines", "pydantic", "annotated_types", "ruamel", "argcomplete", "_typeshed"}
    known = own | set(EXTRAS)
    assert set(done.stdout.split()) - known == set()
