"""A package of one stage, `qwenops.toy.counter`, and the environment of a run."""

import contextlib
import sys

import qwenops

_CONFIG = """
from pydantic import Field
from qwenops.recipe.config import Config
class CounterConfig(Config):
    value: int = Field(1, description="house choice: test.")
    fault: str = Field("", description="house choice: test.")
"""


@contextlib.contextmanager
def toy_stage(folder, monkeypatch, run):
    """Make `toy.counter`, whose `run.py` has the text `run`, importable; yields `folder`, where its run lies."""
    package = folder / "package" / "toy" / "counter"
    package.mkdir(parents=True)
    for place in (package, package.parent):
        (place / "__init__.py").write_text("")
    (package / "config.py").write_text(_CONFIG)
    (package / "run.py").write_text(run)
    monkeypatch.setattr(qwenops, "__path__", [*qwenops.__path__, str(folder / "package")])
    for name in ("store", "events", "cache"):
        monkeypatch.setenv(f"QWENOPS_{name.upper()}", str(folder / name))
    yield folder
    for name in [name for name in sys.modules if name.startswith("qwenops.toy")]:
        del sys.modules[name]
