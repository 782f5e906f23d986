"""A cluster for these tests: the one `QWENOPS_TEST_KUBECONFIG` names, or a control plane started here.

| variable | meaning |
|---|---|
| `QWENOPS_TEST_KUBECONFIG` | kubeconfig of an administrator of a throw-away cluster |
| `KUBEBUILDER_ASSETS` | folder with etcd and kube-apiserver, used when no cluster is named |
| `QWENOPS_TEST_PLACEMENT` | JSON file of a placement: image, pull policy, host paths, pods, accounts, resources |

With nodes, and the placement's `artifact_root` visible on this machine under the same path, stages really run: by
KubeRay where it runs, else by `operator_pods`. Without nodes the operator's part is played by `operator_double`.
"""

import contextlib
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client.rest import ApiException
from tests.integration.cluster.control_plane import ControlPlane
from tests.integration.cluster.operator_pods import PodOperator
from tests.platform.conftest import counter

from qwenops.platform.kube import Kube
from qwenops.recipe.placement import Placement, RayCluster
from qwenops_pipelines.placements import by_name

__all__ = ["counter"]

CRDS = next((p / "shared/data/kuberay_crds" for p in Path(__file__).parents if (p / "shared/data").is_dir()), None)


@dataclass
class Cluster:
    """A cluster that tests may use.

    Attributes:
        kubeconfig: An administrator's.
        plane: The control plane started here; None for a cluster from outside.
        has_operator: Whether KubeRay runs.
        has_nodes: Whether pods can run.
    """

    kubeconfig: str
    plane: ControlPlane | None
    has_operator: bool = False
    has_nodes: bool = False

    def api(self) -> client.ApiClient:
        """An administrator's client."""
        settings = client.Configuration()
        config.load_kube_config(self.kubeconfig, client_configuration=settings)
        return client.ApiClient(settings)

    def api_as(self, token: str) -> client.ApiClient:
        """A client that shows `token`."""
        settings = client.Configuration()
        config.load_kube_config(self.kubeconfig, client_configuration=settings)
        settings.cert_file = settings.key_file = settings.refresh_api_key_hook = None
        settings.api_key = {"authorization": f"Bearer {token}"}
        return client.ApiClient(settings)

    def kube(self, namespace: str, **options) -> Kube:
        """The launcher's own client."""
        return Kube(self.api(), namespace, outage_seconds=60, watch_seconds=2, **options)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """The cluster, with KubeRay's resources known to it; skips with the reason where there is none."""
    named, assets = os.environ.get("QWENOPS_TEST_KUBECONFIG"), os.environ.get("KUBEBUILDER_ASSETS")
    if named:
        found = Cluster(named, None)
    elif assets and (Path(assets) / "kube-apiserver").exists():
        plane = ControlPlane(Path(assets), tmp_path_factory.mktemp("plane"))
        found = Cluster(str(plane.kubeconfig), plane)
    else:
        pytest.skip("no cluster: neither QWENOPS_TEST_KUBECONFIG nor KUBEBUILDER_ASSETS with kube-apiserver is set")
    try:
        _install_resources(found)
        found.has_nodes = bool(client.CoreV1Api(found.api()).list_node().items)
        found.has_operator = found.has_nodes and _operator_runs(found)
        yield found
    finally:
        if found.plane:
            found.plane.close()


@pytest.fixture
def namespace(cluster):
    """A namespace of the test's own."""
    yield from _namespace(cluster)


@pytest.fixture
def other_namespace(cluster):
    """A second team's namespace."""
    yield from _namespace(cluster)


@pytest.fixture(scope="session")
def placement() -> Placement:
    """The placement under test: from `QWENOPS_TEST_PLACEMENT`, else the one for throw-away clusters."""
    return by_name(os.environ.get("QWENOPS_TEST_PLACEMENT", "kind"))


@pytest.fixture
def ray_cluster(placement) -> RayCluster:
    """Its Ray cluster for document stages, with waits fit for a test."""
    found = placement.cluster("data")
    assert found, "the placement under test runs no data stages as RayJobs; name a cluster under launchers.data"
    return found.model_copy(update={"attempts": 1, "queue": "", "ttl_seconds_after_finished": 0})


@pytest.fixture
def real(cluster, namespace, placement):
    """A folder that this machine and the pods share, in a cluster whose nodes run RayJobs."""
    if not cluster.has_nodes:
        pytest.skip("no node runs pods in this cluster")
    root = Path(placement.artifact_root or "/nowhere")
    if not root.is_dir() or not os.access(root, os.W_OK):
        pytest.skip(f"the placement's artifact_root {root} is not a writable folder of this machine")
    made = _claims(cluster, namespace, placement)
    # The pods' user is another than this process's, and both write there.
    before = os.umask(0)
    with contextlib.nullcontext() if cluster.has_operator else PodOperator(cluster.api(), namespace):
        yield root / f"test-{time.time_ns()}"
    os.umask(before)
    for name in made:
        client.CoreV1Api(cluster.api()).delete_persistent_volume(name)


def _claims(cluster: Cluster, namespace: str, placement: Placement) -> list[str]:
    """The placement's claims in the namespace, each on this machine's folder of the same path."""
    core, made = client.CoreV1Api(cluster.api()), []
    for volume in placement.volumes.values():
        if volume.claim:
            size, modes = {"storage": "1Gi"}, ["ReadWriteMany"]
            name = f"{namespace}-{volume.claim}"
            spec: dict = {"capacity": size, "accessModes": modes, "storageClassName": ""}
            core.create_persistent_volume(
                {"metadata": {"name": name}, "spec": spec | {"hostPath": {"path": volume.mount_path}}}
            )
            spec = {"resources": {"requests": size}, "accessModes": modes, "storageClassName": "", "volumeName": name}
            core.create_namespaced_persistent_volume_claim(
                namespace, {"metadata": {"name": volume.claim}, "spec": spec}
            )
            made.append(name)
    return made


def _install_resources(cluster: Cluster) -> None:
    extensions = client.ApiextensionsV1Api(cluster.api())
    for name in ("rayjobs.ray.io", "rayclusters.ray.io"):
        try:
            extensions.read_custom_resource_definition(name)
        except ApiException as error:
            assert error.status == 404
            if CRDS is None:
                pytest.skip(f"the cluster lacks {name}, and KubeRay's CRDs are not on this machine")
            text = (CRDS / f"ray.io_{name.split('.')[0]}.yaml").read_text(encoding="utf-8")
            extensions.create_custom_resource_definition(yaml.load(text, yaml.CSafeLoader))
    deadline = time.monotonic() + 30
    while not _is_served(cluster):
        assert time.monotonic() < deadline, "ray.io/v1 is not served"
        time.sleep(0.3)


def _is_served(cluster: Cluster) -> bool:
    try:
        client.CustomObjectsApi(cluster.api()).list_namespaced_custom_object("ray.io", "v1", "default", "rayjobs")
    except ApiException:
        return False
    return True


def _operator_runs(cluster: Cluster) -> bool:
    deployments = client.AppsV1Api(cluster.api()).list_deployment_for_all_namespaces().items
    return any("kuberay-operator" in d.metadata.name and d.status.ready_replicas for d in deployments)


def _namespace(cluster: Cluster):
    core = client.CoreV1Api(cluster.api())
    name = f"qwenops-test-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": name}})
    deadline = time.monotonic() + 30
    # Pods need the namespace's own account, which a controller makes a little later.
    while cluster.has_nodes and not core.list_namespaced_service_account(name).items:
        assert time.monotonic() < deadline, f"namespace {name} got no service account"
        time.sleep(0.2)
    yield name
    core.delete_namespace(name)
