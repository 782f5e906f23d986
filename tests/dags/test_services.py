"""What a run on this machine starts beside its stages."""

import pytest

from qwenops.platform.context import RunContext
from qwenops_pipelines.dags.nodes import NODES
from qwenops_pipelines.recipes import load_recipe
from qwenops_pipelines.reuse import ReusePlan
from qwenops_pipelines.services import _preloaded


@pytest.fixture(scope="module")
def causes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    context = RunContext(str(folder / "store"), str(folder / "events"), str(folder / "cache"))
    return ReusePlan(load_recipe("smoke", []), context, NODES).causes


@pytest.mark.parametrize(
    ("names", "first", "late"),
    [
        ("collect ingest", "data.collect", {"great_expectations"}),
        ("pretrain extend", "pretraining.pretrain", {"transformers.models.qwen2.modeling_qwen2"}),
        ("register report", "delivery.register", set()),
    ],
)
def test_stage_server_is_told_to_import_its_stages_and_what_they_import_late(causes, names, first, late):
    nodes = [node for node in NODES if node.name in names.split()]
    found = _preloaded(nodes, [causes[node.name] for node in nodes])
    assert found[0] == f"qwenops.{first}.run"
    assert {module for module in found if module.startswith("qwenops.")} == {f"qwenops.{n.stage}.run" for n in nodes}
    assert late <= set(found)
    assert not {"great_expectations", "transformers.models.qwen2.modeling_qwen2"} - late & set(found) - late
    assert len(found) == len(set(found))
