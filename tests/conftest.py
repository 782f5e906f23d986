"""Which tests run, in which order, and where the runs they start are recorded."""

import os
import resource
from collections import Counter
from pathlib import Path

import pytest
from tests.durations import LONG, MAKES_SMOKE, MOST_FAST_SECONDS

_ROOT = Path(__file__).parent
_spent: Counter[str] = Counter()
_began = pytest.StashKey[float]()


def pytest_addoption(parser):
    parser.addoption("--fast", action="store_true", help="leave out the files that `tests/durations.py` lists")


def pytest_ignore_collect(collection_path, config):
    """In the fast tier a file that takes long is not even imported."""
    if config.getoption("--fast") and _name(collection_path) in LONG:
        return True
    return None


def pytest_collection_modifyitems(items):
    """Longest files first, so that no worker ends with one; what waits for `smoke` when it is likely made."""
    waiting = {_name(item.path) for item in items if "smoke_run" in item.fixturenames} - {MAKES_SMOKE}

    def place(item):
        name = _name(item.path)
        return name != MAKES_SMOKE, name not in LONG, name in waiting, -LONG.get(name, 0)

    items.sort(key=place)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item):
    item.stash[_began] = _processor_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    """Hold the fast tier to what it is, by processor time, which other processes do not lengthen much."""
    result = yield
    name = _name(item.path)
    _spent[name] += _processor_seconds() - item.stash[_began]
    if item.config.getoption("--fast") and _spent[name] > MOST_FAST_SECONDS:
        pytest.fail(f"{name} took {_spent[name]:.0f} s of processor time: list it in tests/durations.py", pytrace=False)
    return result


@pytest.fixture(scope="session", autouse=True)
def user_store(tmp_path_factory):
    """A store of this session, one for all workers: never that of whoever runs the tests, nor a server of theirs."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(shared / "data"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield shared / "data" / "qwenops"


def _name(path):
    return Path(path).relative_to(_ROOT).as_posix() if Path(path).is_relative_to(_ROOT) else str(path)


def _processor_seconds():
    """Of this process, and of the children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
