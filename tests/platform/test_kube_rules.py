"""The doubles of API server and KubeRay take what our placements make, and refuse what the real ones refuse."""

import copy

import pytest
from tests.platform.kube_rules import kuberay_refusals, pod_refusals, server_refusals
from tests.platform.test_ray_manifest import full

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
        assert [fault for spec in pods(job) for fault in pod_refusals(spec)] == []


def pods(job):
    """Spec of every pod that KubeRay makes of a RayJob."""
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    submitters = [job["spec"]["submitterPodTemplate"]] if "submitterPodTemplate" in job["spec"] else []
    return [template["spec"] for template in [group["template"] for group in groups] + submitters]


@pytest.mark.parametrize("mode", ["K8sJobMode", "HTTPMode", "SidecarMode"])
@pytest.mark.parametrize("autoscaling", ["off", "v1", "v2"])
def test_rayjob_with_every_field_of_a_placement_is_taken(mode, autoscaling):
    cluster = full().cluster("pretraining")
    assert cluster
    made = cluster.model_copy(update={"submission_mode": mode, "autoscaling": autoscaling})
    job = ray_job(made, Identity("run", "pretrain", "f" * 64), 0, "python -m x", "{}")
    assert [*server_refusals(job), *kuberay_refusals(job)] == []
    assert [fault for spec in pods(job) for fault in pod_refusals(spec)] == []


def ray(job):
    return job["spec"]["rayClusterSpec"]


def head(job):
    return ray(job)["headGroupSpec"]


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
        (lambda job: job["spec"].update(shutdownAfterJobFinishes=False), "TTLSecondsAfterFinished"),
        (lambda job: job["spec"].update(submissionMode="SidecarMode"), "submitterPodTemplate"),
        (lambda job: ray(job).update(authOptions={"mode": "token"}, rayVersion="2.51.1"), "2.52.0"),
        (lambda job: ray(job).update(authOptions={"mode": "token"}, rayVersion=""), "2.52.0"),
        (lambda job: ray(job).update(authOptions={"mode": "token", "enableK8sTokenAuth": True}), "not supported"),
        (lambda job: ray(job).update(gcsFaultToleranceOptions={"backend": "rocksdb"}), "feature gate"),
        (lambda job: head(job)["rayStartParams"].update(labels="a=b"), "rayStartParams['labels']"),
        (lambda job: head(job)["template"]["spec"].pop("containers"), "at least one container"),
        (
            lambda job: head(job)["template"]["spec"]["containers"][0]["env"].append({"name": "RAY_REDIS_ADDRESS"}),
            "RAY_REDIS_ADDRESS",
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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda pod, _: pod["containers"].append(pod["containers"][0]), "Duplicate"),
        (lambda _, container: container.update(name="ray_head"), "RFC 1123"),
        (lambda _, container: container.update(image=""), "image: Required"),
        (lambda _, container: container["volumeMounts"].append({"name": "no", "mountPath": "/no"}), "Not found: no"),
        (lambda _, container: container["volumeMounts"].append(container["volumeMounts"][0]), "must be unique"),
        (lambda _, container: container["volumeMounts"][0].update(subPath="../other"), "relative path"),
        (lambda _, container: container["env"].append({"name": "A B", "value": ""}), "A B"),
        (lambda _, container: container["env"].append({"name": "A", "value": 1}), "of type string"),
        (lambda _, container: container["resources"]["requests"].update(memory="2Ti"), "less than or equal"),
        (lambda _, container: container["resources"]["requests"].update({"nvidia.com/gpu": "7"}), "must be equal"),
        (lambda _, container: container["resources"]["limits"].update({"nvidia.com/gpu": "0.5"}), "an integer"),
        (lambda _, container: container["resources"]["requests"].update({"x.org/fpga": "1"}), "Limit must be set"),
    ],
)
def test_server_refuses_a_pod(change, words):
    spec = copy.deepcopy(pods(list(jobs())[-1])[0])
    change(spec, spec["containers"][0])
    assert words in "; ".join(pod_refusals(spec))
