"""A stage handle on a temporary folder, and one local Ray for the tests that need it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from qwenops.platform.context import RunContext
from qwenops.platform.stage.handle import Stage


@pytest.fixture
def make_stage(tmp_path: Path) -> Callable[[str], Stage]:
    """Return a function that makes a stage of a given name with fresh folders below `tmp_path`."""
    context = RunContext(str(tmp_path / "store"), str(tmp_path / "events"), str(tmp_path / "cache"))

    def make(node: str) -> Stage:
        out, scratch = tmp_path / "out" / node, tmp_path / "scratch" / node
        out.mkdir(parents=True)
        scratch.mkdir(parents=True)
        return Stage(node, 7, context, out, scratch)

    return make


@pytest.fixture(scope="session", autouse=True)
def _one_ray() -> Iterator[None]:
    yield
    ray.shutdown()
