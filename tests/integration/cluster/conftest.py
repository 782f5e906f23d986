"""A cluster for these tests: the one `QWENOPS_TEST_KUBECONFIG` names, or a control plane started here.

The README beside this file lists every variable. With nodes, and the placement's `artifact_root` visible on this
machine under the same path, stages really run: by KubeRay where it runs, else by `operator_pods`. What a test makes it
removes, whatever its end.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client.rest import ApiException
from tests.helm.chart import ROOT, Chart
from tests.integration.cluster.control_plane import ControlPlane
from tests.integration.cluster.operator_pods import PodOperator
from tests.platform.conftest import counter

from qwenops.platform.kubernetes.client import Kube
from qwenops.recipe.placement import Placement, RayCluster
from qwenops_pipelines.placements import by_name

__all__ = ["counter"]

CRDS = next((p / "shared/data/kuberay_crds" for p in Path(__file__).parents if (p / "shared/data").is_dir()), None)
_PROBE_SECONDS = 15


@dataclass
class Cluster:
    """A cluster that tests may use.

    Attributes:
        kubeconfig: An administrator's.
        plane: The control plane started here; None for a cluster from outside.
        has_operator: Whether KubeRay runs.
        has_nodes: Whether pods can run.
        minor: The Y of its version 1.Y.
    """

    kubeconfig: str
    plane: ControlPlane | None
    has_operator: bool = False
    has_nodes: bool = False
    minor: int = 0

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
    with contextlib.ExitStack() as stack:
        if named:
            found = Cluster(named, None)
        elif assets and (Path(assets) / "kube-apiserver").exists():
            plane = ControlPlane(Path(assets), tmp_path_factory.mktemp("plane"))
            stack.callback(plane.close)
            found = Cluster(str(plane.kubeconfig), plane)
        else:
            pytest.skip("no cluster: neither QWENOPS_TEST_KUBECONFIG nor KUBEBUILDER_ASSETS with kube-apiserver is set")
        found.minor = int("".join(filter(str.isdigit, client.VersionApi(found.api()).get_code().minor)))
        stack.enter_context(_ray_resources(found))
        found.has_nodes = any(map(_takes_pods, client.CoreV1Api(found.api()).list_node().items))
        found.has_operator = found.plane is None and _operator_runs(found)
        yield found


@pytest.fixture(scope="session")
def chart() -> Chart:
    """The chart and the helm that renders it: of the path, else the pinned one, fetched into a cache."""
    if helm := shutil.which("helm"):
        return Chart(helm)
    command = [sys.executable, str(ROOT / "infra" / "ci" / "fetch_tools.py")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("no helm: not on the path, not in the cache of infra/ci/fetch_tools.py, and no package index")
    return Chart(dict(line.split(" ", 1) for line in done.stdout.splitlines())["helm"])


@pytest.fixture
def namespace(cluster):
    """A namespace of the test's own."""
    with made_namespace(cluster) as name:
        yield name


@pytest.fixture
def other_namespace(cluster):
    """A second team's namespace."""
    with made_namespace(cluster) as name:
        yield name


@pytest.fixture(scope="session")
def placement() -> Placement:
    """The placement under test: from `QWENOPS_TEST_PLACEMENT`, else the one for throw-away clusters."""
    return by_name(os.environ.get("QWENOPS_TEST_PLACEMENT", "kind"))


@pytest.fixture
def ray_cluster(placement) -> RayCluster:
    """Its Ray cluster for document stages, with waits fit for a test."""
    found = placement.cluster("data")
    assert found, "the placement under test runs no data stages as RayJobs; name a cluster under launchers.data"
    return found.model_copy(update={"attempts": 1, "queue": "", "queue_priority": ""})


@pytest.fixture
def real(cluster, namespace, placement):
    """A folder that this machine and the pods share, in a cluster whose nodes run RayJobs."""
    if not cluster.has_nodes:
        pytest.skip("no node runs pods in this cluster")
    root = Path(placement.artifact_root or "/nowhere")
    if not root.is_dir() or not os.access(root, os.W_OK):
        pytest.skip(f"the placement's artifact_root {root} is not a writable folder of this machine")
    folder = root / f"test-{time.time_ns()}"
    with contextlib.ExitStack() as stack:
        stack.enter_context(claims(cluster, namespace, placement))
        stack.enter_context(accounts(cluster, namespace, placement))
        if not cluster.has_operator:
            stack.enter_context(PodOperator(cluster.api(), namespace))
        # The pods' user is another than this process's, and both write there.
        stack.callback(os.umask, os.umask(0))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


@contextlib.contextmanager
def made_namespace(cluster: Cluster, **labels: str) -> Iterator[str]:
    """A new namespace, deleted afterwards with all that is in it."""
    core, name = client.CoreV1Api(cluster.api()), f"qwenops-test-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": name, "labels": labels}})
    try:
        # Pods need the namespace's own account, which a controller makes a little later.
        if cluster.has_nodes:
            _wait(lambda: core.list_namespaced_service_account(name).items, 30, f"a service account in {name}")
        yield name
    finally:
        core.delete_namespace(name)


def placed_in(placement: Placement, folder: Path) -> Placement:
    """The placement with store, cache and events in `folder`, and without an MLflow server."""
    places = {"artifact_root": str(folder / "store"), "cache_root": str(folder / "cache"), "tracking_uri": ""}
    return placement.model_copy(update=places)


@contextlib.contextmanager
def claims(cluster: Cluster, namespace: str, placement: Placement) -> Iterator[None]:
    """The placement's claims in the namespace, on this machine's folder of the same path; one that exists stays."""
    core = client.CoreV1Api(cluster.api())
    wanted = {volume.claim for volume in placement.volumes.values() if volume.claim}

    def leaving():
        found = [*core.list_namespaced_persistent_volume_claim(namespace).items, *core.list_persistent_volume().items]
        named = wanted | {f"{namespace}-{claim}" for claim in wanted}
        return [item for item in found if item.metadata.name in named and item.metadata.deletion_timestamp]

    # An earlier test's go once no pod names them.
    _wait(lambda: not leaving(), 180, f"end of the claims {', '.join(sorted(wanted))} of an earlier test")
    there = {item.metadata.name for item in core.list_namespaced_persistent_volume_claim(namespace).items}
    with contextlib.ExitStack() as stack:
        for volume in placement.volumes.values():
            if not volume.claim or volume.claim in there:
                continue
            name = f"{namespace}-{volume.claim}"
            shared: dict = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
            spec = shared | {"capacity": {"storage": "1Gi"}, "hostPath": {"path": volume.mount_path}}
            spec |= {"claimRef": {"namespace": namespace, "name": volume.claim}}
            core.create_persistent_volume({"metadata": {"name": name}, "spec": spec})
            stack.callback(core.delete_persistent_volume, name)
            spec = shared | {"resources": {"requests": {"storage": "1Gi"}}, "volumeName": name}
            core.create_namespaced_persistent_volume_claim(
                namespace, {"metadata": {"name": volume.claim}, "spec": spec}
            )
            stack.callback(core.delete_namespaced_persistent_volume_claim, volume.claim, namespace)
        yield


@contextlib.contextmanager
def accounts(cluster: Cluster, namespace: str, placement: Placement) -> Iterator[None]:
    """The service accounts that the placement's Ray pods name, without rights; one that exists stays."""
    core = client.CoreV1Api(cluster.api())
    there = {item.metadata.name for item in core.list_namespaced_service_account(namespace).items}
    groups = [placement]
    for area in placement.launchers:
        found = placement.cluster(area)
        assert found
        groups += [found.head, found.submitter, *found.workers.values()]
    with contextlib.ExitStack() as stack:
        for name in sorted({group.service_account for group in groups} - {""} - there):
            body = {"metadata": {"name": name}, "automountServiceAccountToken": False}
            core.create_namespaced_service_account(namespace, body)
            stack.callback(core.delete_namespaced_service_account, name, namespace)
        yield


@contextlib.contextmanager
def _ray_resources(cluster: Cluster) -> Iterator[None]:
    """KubeRay's custom resources: those that the cluster has, or for these tests those of the project's data."""
    extensions = client.ApiextensionsV1Api(cluster.api())
    with contextlib.ExitStack() as stack:
        for name in ("rayjobs.ray.io", "rayclusters.ray.io"):
            try:
                extensions.read_custom_resource_definition(name)
            except ApiException as error:
                assert error.status == 404
                if CRDS is None:
                    pytest.skip(f"the cluster lacks {name}, and KubeRay's CRDs are not on this machine")
                text = (CRDS / f"ray.io_{name.split('.')[0]}.yaml").read_text(encoding="utf-8")
                extensions.create_custom_resource_definition(yaml.load(text, yaml.CSafeLoader))
                stack.callback(extensions.delete_custom_resource_definition, name)
        _wait(lambda: _is_served(cluster), 30, "ray.io/v1 among the served resources")
        yield


def _is_served(cluster: Cluster) -> bool:
    try:
        client.CustomObjectsApi(cluster.api()).list_namespaced_custom_object("ray.io", "v1", "default", "rayjobs")
    except ApiException:
        return False
    return True


def _takes_pods(node) -> bool:
    ready = any(c.type == "Ready" and c.status == "True" for c in node.status.conditions or [])
    return ready and not node.spec.unschedulable


def _operator_runs(cluster: Cluster) -> bool:
    """Whether KubeRay takes a RayJob up. A suspended one starts no pod; an operator need not be a Deployment."""
    containers = [{"name": "ray-head", "image": "none"}]
    head = {"rayStartParams": {}, "template": {"spec": {"containers": containers}}}
    spec = {"entrypoint": "true", "suspend": True, "shutdownAfterJobFinishes": True}
    spec |= {"rayClusterSpec": {"headGroupSpec": head}}
    with made_namespace(cluster) as name:
        kube = cluster.kube(name)
        kube.create_job({"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "probe"}, "spec": spec})
        deadline = time.monotonic() + _PROBE_SECONDS
        while not (found := (kube.job("probe") or {}).get("status")) and time.monotonic() < deadline:
            time.sleep(0.3)
        kube.delete_job("probe", wait_seconds=30)
    return bool(found)


def _wait(ready, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.2)
