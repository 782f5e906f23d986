"""The chart tests use the real helm and Kubernetes' own schemas, fetched once into a cache folder."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from tests.helm.chart import ROOT, Chart, Object
from tests.helm.schemas import Schemas

_UNREACHABLE = 3


@pytest.fixture(scope="session")
def tools() -> dict[str, str]:
    """Paths of helm, kubectl and the schemas."""
    command = [sys.executable, str(ROOT / "infra" / "ci" / "fetch_tools.py")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode == _UNREACHABLE:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.fixture(scope="session")
def chart(tools: dict[str, str]) -> Chart:
    """The chart, rendered by the pinned helm."""
    return Chart(tools["helm"])


@pytest.fixture(scope="session")
def render(chart: Chart) -> Callable[..., list[Object]]:
    """Shorthand for `chart.render`."""
    return chart.render


@pytest.fixture(scope="session")
def schemas(tools: dict[str, str]) -> Schemas:
    """Kubernetes' schemas."""
    return Schemas(tools["schemas"])
