"""A real API server takes every object that the chart renders, and a restricted namespace every pod of ours."""

import json

import pytest
from kubernetes import client, utils
from tests.helm.chart import VALUES, pod_specs
from tests.helm.pod_security import violations
from tests.integration.cluster.conftest import made_namespace

from qwenops.platform.kubernetes.ray_manifest import Identity, ray_job
from qwenops_pipelines.placements import by_name

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

# The chart's kubeVersion; the admission plugin of Pod Security Standards is older (1.25).
OLDEST = 30
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
# Kinds that only a cluster with these projects knows.
FOREIGN = ("kueue.x-k8s.io", "monitoring.coreos.com")


@pytest.fixture
def supported(cluster):
    """Skips on a server that the chart itself refuses."""
    if cluster.minor < OLDEST:
        pytest.skip(f"the chart needs Kubernetes 1.{OLDEST}; this is 1.{cluster.minor}")


@pytest.fixture
def restricted(cluster):
    """A namespace that enforces the restricted profile."""
    with made_namespace(cluster, **RESTRICTED) as name:
        yield name


def without_account(spec):
    """A pod's fields but its account: that is another object of the chart, and a server takes no pod before it."""
    return {key: value for key, value in spec.items() if key != "serviceAccountName"}


def refusals(api, namespace, item):
    """What the server says against an object, asked without making it."""
    if item["kind"] == "Pod":
        item = item | {"spec": without_account(item["spec"])}
    try:
        utils.create_from_dict(api, item, namespace=namespace, dry_run="All", field_validation="Strict")
    except utils.FailToCreateError as error:
        # A cluster-wide object of a chart that is installed here already is no fault.
        return [json.loads(cause.body)["message"] for cause in error.api_exceptions if cause.status != 409]
    return []


@pytest.mark.usefixtures("supported")
@pytest.mark.parametrize("values", VALUES)
def test_server_takes_every_object_of_the_chart(cluster, namespace, chart, values):
    objects = [item for item in chart.render(values, namespace) if not item["apiVersion"].startswith(FOREIGN)]
    assert len(objects) > 10
    assert [fault for item in objects for fault in refusals(cluster.api(), namespace, item)] == []


@pytest.mark.usefixtures("supported")
def test_server_refuses_an_unknown_field(cluster, namespace, chart):
    item = next(item for item in chart.render("default", namespace) if item["kind"] == "Service")
    wrong = item | {"spec": item["spec"] | {"portz": []}}
    assert "portz" in "".join(refusals(cluster.api(), namespace, wrong))


def pods_of_the_chart(chart, namespace):
    for values in VALUES:
        for name, _, spec in pod_specs(chart.render(values, namespace)):
            yield f"{values} {name}", without_account(spec)


def pods_of_rayjobs(placement):
    for place in (placement, by_name("kind"), by_name("h200_node")):
        for area in place.launchers:
            job = ray_job(place.cluster(area), Identity("run", area, "f" * 64), 0, "true", "{}")["spec"]
            groups = {"head": job["rayClusterSpec"]["headGroupSpec"]["template"]}
            groups |= {g["groupName"]: g["template"] for g in job["rayClusterSpec"]["workerGroupSpecs"]}
            groups |= {"submitter": job["submitterPodTemplate"]} if "submitterPodTemplate" in job else {}
            for group, template in groups.items():
                yield f"{place.name} {area} {group}", without_account(template["spec"])


@pytest.mark.usefixtures("supported")
def test_restricted_namespace_takes_every_pod(cluster, restricted, chart, placement):
    """And refuses those of a placement that are not restricted, so that the profile is seen to be enforced."""
    core, wrong = client.CoreV1Api(cluster.api()), []
    for name, spec in [*pods_of_the_chart(chart, restricted), *pods_of_rayjobs(placement)]:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "asked"}, "spec": spec}
        try:
            core.create_namespaced_pod(restricted, pod, dry_run="All", field_validation="Strict")
            refused = ""
        except client.ApiException as error:
            refused = json.loads(error.body)["message"]
        if bool(refused) is not bool(list(violations(spec))):
            wrong.append((name, refused))
    assert wrong == []


@pytest.mark.usefixtures("supported")
def test_restricted_namespace_refuses_a_pod_without_a_security_context(cluster, restricted):
    pod = {"metadata": {"name": "asked"}, "spec": {"containers": [{"name": "main", "image": "i"}]}}
    with pytest.raises(client.ApiException) as refusal:
        client.CoreV1Api(cluster.api()).create_namespaced_pod(restricted, pod, dry_run="All")
    assert refusal.value.status == 403
    assert "PodSecurity" in refusal.value.body
