"""The import rules of pyproject.toml hold."""

import subprocess
import sys

from tests.architecture.places import ROOT, STAGES, dotted

_LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def test_imports_run_one_way():
    done = subprocess.run([sys.executable, "-c", _LINT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_every_stage_is_under_the_independence_rule():
    rules = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert [dotted(stage) for stage in STAGES if f'"{dotted(stage)}"' not in rules] == []


def test_reading_a_recipe_imports_nothing_heavy():
    code = "import sys, qwenops.recipe.schema; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "transformers", "ray", "kfp", "mlflow", "numpy"} & set(done.stdout.split()) == set()
