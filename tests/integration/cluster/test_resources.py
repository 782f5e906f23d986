"""A real API server takes the RayJobs we write and refuses bad ones with the field."""

import pytest
from kubernetes import client
from kubernetes.client.rest import ApiException

from qwenops.errors import PlatformError
from qwenops.platform.kubernetes.ray_manifest import Identity, ray_job
from qwenops_pipelines.placements import by_name

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def manifest(ray_cluster, name="collect"):
    return ray_job(ray_cluster, Identity("run", name, "f" * 64), 0, "python -m qwenops.platform.launch.driver x", "{}")


def known_fields(cluster):
    """Fields of a RayJob's spec in the installed version of its definition."""
    found = client.ApiextensionsV1Api(cluster.api()).read_custom_resource_definition("rayjobs.ray.io")
    (version,) = (v for v in found.spec.versions if v.name == "v1")
    return version.schema.open_apiv3_schema.properties["spec"].properties


def try_to_create(cluster, namespace, body):
    if "preRunningDeadlineSeconds" not in known_fields(cluster):
        # KubeRay 1.5: the server drops the field, and the launcher keeps that deadline itself.
        del body["spec"]["preRunningDeadlineSeconds"]
    client.CustomObjectsApi(cluster.api()).create_namespaced_custom_object(
        "ray.io", "v1", namespace, "rayjobs", body, dry_run="All", field_validation="Strict"
    )


@pytest.mark.parametrize("mode", ["K8sJobMode", "HTTPMode", "SidecarMode"])
def test_job_of_every_placement_is_accepted_strictly(cluster, namespace, placement, mode):
    places = [placement, by_name("kind"), by_name("h200_node")]
    for place in places:
        for area in place.launchers:
            made = manifest(place.cluster(area).model_copy(update={"submission_mode": mode}))
            try_to_create(cluster, namespace, made)


@pytest.mark.parametrize(
    ("path", "value", "field", "since"),
    [
        (("ttlSecondsAfterFinished",), "soon", "ttlSecondsAfterFinished", 0),
        (("rayClusterSpec", "headGroupSpec", "template"), None, "template", 0),
        # A rule of the definition, and a field that it does not have: older servers look at neither.
        (("managedBy",), "nobody", "managedBy", 25),
        (("entrypiont",), "python", "entrypiont", 25),
    ],
)
def test_bad_job_is_refused_with_the_field(cluster, namespace, ray_cluster, path, value, field, since):
    if cluster.minor < since:
        pytest.skip(f"only Kubernetes 1.{since} and newer looks at this; this is 1.{cluster.minor}")
    made = manifest(ray_cluster)
    place = made["spec"]
    for part in path[:-1]:
        place = place[part]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    with pytest.raises(ApiException) as refusal:
        try_to_create(cluster, namespace, made)
    assert refusal.value.status in (400, 422)
    assert field in refusal.value.body


def test_refusal_reaches_the_reader_with_the_field(cluster, namespace, ray_cluster):
    made = manifest(ray_cluster)
    made["spec"]["activeDeadlineSeconds"] = "long"
    with pytest.raises(PlatformError, match="activeDeadlineSeconds"):
        cluster.kube(namespace).create_job(made)


def test_name_can_be_taken_once(cluster, namespace, ray_cluster):
    kube = cluster.kube(namespace)
    made = manifest(ray_cluster)
    made["spec"]["suspend"] = True
    assert kube.create_job(made)
    assert not kube.create_job(made)
    client.CustomObjectsApi(cluster.api()).delete_namespaced_custom_object(
        "ray.io", "v1", namespace, "rayjobs", made["metadata"]["name"]
    )
