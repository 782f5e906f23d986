"""Pre-training on two Ray Train workers, divided as a placement says, ends as in one process."""

import json

import pytest
from tests.pretraining.corpus import PRETRAIN

from qwenops.recipe.mesh import ParallelConfig, mesh_text
from qwenops.recipe.placement import Placement

# In fp32 the workers differ from one process by the order of sums alone, which Muon's division by norms enlarges.
EXACT = PRETRAIN.model_copy(update={"training": PRETRAIN.training.model_copy(update={"precision": "fp32"})})
_ROUNDING = 2e-3


@pytest.fixture(scope="module")
def alone(run_stage_of_module, artifacts):
    return run_stage_of_module("pretrain", EXACT, artifacts)


@pytest.mark.integration
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "mesh", [ParallelConfig(shard=2), ParallelConfig(tensor=2), ParallelConfig(replicate=2), ParallelConfig(context=2)]
)
def test_pretrain_on_two_ray_workers_learns_the_curve_of_one_process(run_stage, artifacts, alone, mesh, monkeypatch):
    placement = Placement(name="two", image="none", num_workers=2, mesh=mesh)
    monkeypatch.setenv("QWENOPS_NUM_WORKERS", str(placement.num_workers))
    monkeypatch.setenv("QWENOPS_MESH", mesh_text(placement.mesh))
    together = run_stage("pretrain", EXACT, artifacts)
    assert together.manifest.records == alone.manifest.records
    assert _curve(together) == pytest.approx(_curve(alone), rel=_ROUNDING)
    for name in ("loss.first", "loss.final", "bits_per_byte.en"):
        assert together.manifest.metrics[name] == pytest.approx(alone.manifest.metrics[name], rel=_ROUNDING)


def _curve(artifact):
    points = [json.loads(line) for line in (artifact.path / "curves.jsonl").read_text(encoding="utf-8").splitlines()]
    return [point["value"] for point in sorted(points, key=lambda point: point["step"]) if point["name"] == "loss"]
