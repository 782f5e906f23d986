"""The doubles of API server and KubeRay take what our placements make, and refuse what the real ones refuse."""

import copy

import pytest
from tests.platform.kube_rules import kuberay_refusals, server_refusals

from qwenops.platform.kubernetes.ray_manifest import Identity, ray_job
from qwenops_pipelines.placements import by_name


def jobs():
    for name in ("kind", "h200_node"):
        placement = by_name(name)
        for area in placement.launchers:
            identity = Identity("b" * 36, area, "f" * 64)
            yield ray_job(placement.cluster(area), identity, 99, "python -m x", "{}")


def test_every_rayjob_of_the_placements_is_taken():
    for job in jobs():
        assert list(server_refusals(job)) == []
        assert list(kuberay_refusals(job)) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda job: job["metadata"].update(name="x" * 48), "no more than 47"),
        (lambda job: job["metadata"].update(name="1st"), "DNS1035"),
        (lambda job: job["spec"].update(suspend=True, shutdownAfterJobFinishes=False), "suspended"),
        (lambda job: job["spec"].update(activeDeadlineSeconds=0), "positive"),
        (lambda job: job["spec"].pop("rayClusterSpec"), "RayClusterSpec"),
        (lambda job: job["spec"].update(entrypoint="x" * 140_000), "argument"),
        (
            lambda job: job["spec"]["rayClusterSpec"].update(workerGroupSpecs=[{"groupName": "w", "minReplicas": 1}]),
            "maxReplicas",
        ),
    ],
)
def test_kuberay_refuses(change, words):
    job = copy.deepcopy(next(jobs()))
    change(job)
    assert words in "; ".join(kuberay_refusals(job))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda job: job["metadata"]["labels"].update(run="x" * 64), 422),
        (lambda job: job["metadata"]["labels"].update(run="a b"), 422),
        (lambda job: job["metadata"].update(annotations={"recipe": "x" * 270_000}), 422),
        (lambda job: job["spec"].update(entrypoint="x" * 1_600_000), 413),
    ],
)
def test_server_refuses(change, status):
    job = copy.deepcopy(next(jobs()))
    change(job)
    assert status in [refused for refused, _ in server_refusals(job)]
