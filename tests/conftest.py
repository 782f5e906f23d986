"""In which order the tests run, and where the runs they start are recorded."""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def user_store(tmp_path_factory):
    """A store of this session, one for all workers: never that of whoever runs the tests, nor a server of theirs."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(shared / "data"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield shared / "data" / "qwenops"


def pytest_collection_modifyitems(items):
    """What stands on the run of `smoke` goes first: it takes longest, and other workers have the rest meanwhile."""
    items.sort(key=lambda item: "smoke_run" not in item.fixturenames)
