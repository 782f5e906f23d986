"""In which order the tests run."""


def pytest_collection_modifyitems(items):
    """What stands on the run of `smoke` goes first: it takes longest, and other workers have the rest meanwhile."""
    items.sort(key=lambda item: "smoke_run" not in item.fixturenames)
