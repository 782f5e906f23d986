import pytest
from tests.pretraining.corpus import PRETRAIN


@pytest.mark.integration
@pytest.mark.timeout(400)
def test_pretrain_on_two_ray_workers_ends_at_the_loss_of_one_process(run_stage, artifacts, pretrained, monkeypatch):
    monkeypatch.setenv("QWENOPS_NUM_WORKERS", "2")
    workers = run_stage("pretrain", PRETRAIN, artifacts)
    alone, together = pretrained.manifest, workers.manifest
    assert together.records == alone.records
    assert together.metrics["loss.final"] == pytest.approx(alone.metrics["loss.final"], abs=0.02)
