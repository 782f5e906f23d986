import subprocess

import pytest

from qwenops.platform.context import RunContext
from qwenops_pipelines.dags.edges import NODES
from qwenops_pipelines.recipes import load_recipe
from qwenops_pipelines.reuse import Stock
from qwenops_pipelines.services import _patiently, _preloaded


def _starts(*ends):
    """What Ray does on a busy machine: it leaves its processes behind and gives up; "" is a node that runs."""
    left, processes = list(ends), []

    def start():
        processes.append(subprocess.Popen(["sleep", "60"]))
        if end := left.pop(0):
            raise RuntimeError(end)

    return start, processes


def test_node_that_took_too_long_is_started_again_and_leaves_nothing_behind():
    late = "The current node timed out during startup."
    start, processes = _starts(late, late, "")
    _patiently(start)
    first, second, third = processes
    assert (first.wait(5), second.wait(5), third.poll()) == (-9, -9, None)
    third.kill()
    third.wait()


@pytest.mark.parametrize(("ends", "starts"), [(("timed out",) * 9, 3), (("no space left",), 1)])
def test_node_that_never_comes_and_other_errors_end_the_run(ends, starts):
    start, processes = _starts(*ends)
    with pytest.raises(RuntimeError, match=ends[0]):
        _patiently(start)
    assert len(processes) == starts
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def causes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    context = RunContext(str(folder / "store"), str(folder / "events"), str(folder / "cache"))
    return Stock(load_recipe("smoke", []), context, NODES).causes


@pytest.mark.parametrize(
    ("nodes", "there", "absent"),
    [
        ("collect ingest", "great_expectations ray.data", "torch transformers ray.train.torch sklearn.linear_model"),
        ("tokens", "great_expectations ray.data transformers", "ray.train.torch sklearn.linear_model"),
        ("pretrain", "torch transformers ray.train.torch", "great_expectations ray.data pandas"),
        ("export register report", "torch transformers", "great_expectations ray.data ray.train.torch"),
    ],
)
def test_stage_server_is_told_to_import_what_its_stages_need_and_nothing_else(causes, nodes, there, absent):
    found = _preloaded([causes[node] for node in nodes.split()])
    assert not set(there.split()) - set(found)
    assert not set(absent.split()) & set(found)
