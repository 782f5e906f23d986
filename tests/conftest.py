"""Which tests stay in one worker when several run them (`pytest -n 2`)."""

import pytest


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """One file is one worker's, and so is all that stands on the run of `smoke`, which goes first: it takes longest."""
    for item in items:
        group = "smoke" if "smoke_run" in item.fixturenames else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: "smoke_run" not in item.fixturenames)
