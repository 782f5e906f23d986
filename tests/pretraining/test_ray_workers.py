"""Pre-training and extension on two Ray Train workers, divided as a placement says, end as in one process."""

import json

import pytest
from tests.pretraining.corpus import EXTEND, PRETRAIN

from qwenops.recipe.mesh import ParallelConfig, mesh_text
from qwenops.recipe.placement import Placement

# In fp32 the workers differ from one process by the order of sums alone, which Muon's division by norms enlarges.
EXACT, EXACT_EXTEND = (
    config.model_copy(update={"training": config.training.model_copy(update={"precision": "fp32"})})
    for config in (PRETRAIN, EXTEND)
)
_ROUNDING = 2e-3


@pytest.fixture(scope="module")
def alone(run_stage_of_module, artifacts):
    return run_stage_of_module("pretrain", EXACT, artifacts)


@pytest.mark.integration
@pytest.mark.parametrize(
    "mesh", [ParallelConfig(shard=2), ParallelConfig(tensor=2), ParallelConfig(replicate=2), ParallelConfig(context=2)]
)
def test_pretrain_on_two_ray_workers_learns_the_curve_of_one_process(run_stage, artifacts, alone, mesh, monkeypatch):
    _two_workers(monkeypatch, mesh)
    together = run_stage("pretrain", EXACT, artifacts)
    assert together.manifest.records == alone.manifest.records
    assert _curve(together) == pytest.approx(_curve(alone), rel=_ROUNDING)
    for name in ("loss.first", "loss.final", "bits_per_byte.en"):
        assert together.manifest.metrics[name] == pytest.approx(alone.manifest.metrics[name], rel=_ROUNDING)
    assert together.manifest.metrics["worker_wait_seconds"] > 0


@pytest.mark.integration
@pytest.mark.parametrize("mesh", [ParallelConfig(shard=2), ParallelConfig(context=2)])
def test_extend_on_two_ray_workers_learns_the_curve_of_one_process(
    run_stage, run_stage_of_module, artifacts, pretrained, mesh, monkeypatch
):
    inputs = {**artifacts, "checkpoint": pretrained.path}
    one = run_stage_of_module("extend", EXACT_EXTEND, inputs)
    _two_workers(monkeypatch, mesh)
    together = run_stage("extend", EXACT_EXTEND, inputs)
    assert _curve(together) == pytest.approx(_curve(one), rel=_ROUNDING)
    for name in ("loss.before", "loss.first", "loss.final", "loss.short.final"):
        assert together.manifest.metrics[name] == pytest.approx(one.manifest.metrics[name], rel=_ROUNDING)


def _two_workers(monkeypatch, mesh):
    placement = Placement(name="two", image="none", num_workers=2, mesh=mesh)
    monkeypatch.setenv("QWENOPS_NUM_WORKERS", str(placement.num_workers))
    monkeypatch.setenv("QWENOPS_MESH", mesh_text(placement.mesh))


def _curve(artifact):
    points = [json.loads(line) for line in (artifact.path / "curves.jsonl").read_text(encoding="utf-8").splitlines()]
    return [point["value"] for point in sorted(points, key=lambda point: point["step"]) if point["name"] == "loss"]
