"""What a run on this machine starts beside its stages."""

import pytest

from qwenops.platform.context import RunContext
from qwenops_pipelines.dags.edges import NODES
from qwenops_pipelines.recipes import load_recipe
from qwenops_pipelines.reuse import Stock
from qwenops_pipelines.services import _preloaded


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
