"""Apply a placement to a task: image, resources, nodes, volumes, environment, retries, and who runs the stage.

A step whose area has a Ray cluster only waits for its RayJob: it gets the launcher's small resources and the
cluster as one JSON variable. What Kubeflow cannot say about a pod is refused here and not dropped.
"""

from kfp import dsl, kubernetes

from qwenops.errors import RecipeError
from qwenops.recipe.account import account_text
from qwenops.recipe.codec import canonical
from qwenops.recipe.mesh import mesh_text
from qwenops.recipe.placement import Placement, Resources
from qwenops.recipe.pods import PART_OF

# Read by the step from its own pod; Kubeflow does not fill its placeholders into environment variables.
_FIELDS = {
    "QWENOPS_POD_NAME": "metadata.name",
    "QWENOPS_POD_NAMESPACE": "metadata.namespace",
    "QWENOPS_RUN_ID": "metadata.labels['pipeline/runid']",
}
_IDENTITY = {"runAsUser": "run_as_user", "runAsGroup": "run_as_group", "runAsNonRoot": "run_as_non_root"}
# In a pod: JSON lines to the log that the cluster collects, OpenMetrics at the chart's port, GPU use to MLflow.
_WATCHED = {"QWENOPS_LOGS": "stderr", "QWENOPS_METRICS_PORT": "9464", "QWENOPS_SYSTEM_METRICS": "yes"}


def set_kubernetes_options(task: dsl.PipelineTask, placement: Placement, area: str) -> None:
    """Set everything on `task` that says where it runs. What it computes stays untouched.

    Args:
        task: A task of any pipeline.
        placement: The place.
        area: Area of the task's stage; picks its resources and its launcher.

    Raises:
        RecipeError: the placement asks of a step what Kubeflow cannot give.
    """
    task.set_container_image(placement.image)
    if placement.retries:
        task.set_retry(placement.retries, backoff_duration="60s", backoff_factor=2.0)
    wanted = placement.launcher_resources if area in placement.launchers else placement.resources.get(area)
    if wanted is not None:
        _resources(task, wanted)
    environment = {name: value for name, value in (_environment(placement, area) | placement.env).items() if value}
    if environment:
        # Not `set_env_variable`, which inspects the whole call stack each time: minutes for a pipeline, under pytest.
        container = task.container_spec
        assert container is not None, "every task is a container"
        container.env = {**(container.env or {}), **environment}
    if placement.artifact_root:
        _refuse(placement)
        _pod(task, placement)
        _nodes(task, placement)
        _mounts(task, placement)
        cluster = placement.cluster(area)
        if cluster and cluster.auth_secret and cluster.submission_mode == "HTTPMode":
            # No pod submits the job there, so the step reads its log from Ray's dashboard.
            kubernetes.use_secret_as_env(task, cluster.auth_secret, {"auth_token": "RAY_AUTH_TOKEN"})


def _environment(placement: Placement, area: str) -> dict[str, str]:
    cluster = placement.cluster(area)
    here = placement.resources.get(area, Resources())
    num_workers = cluster.num_workers if cluster else placement.num_workers
    mesh = cluster.mesh if cluster else placement.mesh
    gpu = cluster.has_accelerators if cluster else bool(here.num_accelerators)
    return {
        "QWENOPS_STORE": placement.artifact_root,
        "QWENOPS_EVENTS": placement.shared_root and f"{placement.shared_root}/events",
        "QWENOPS_CACHE": placement.cache_root,
        "QWENOPS_TRACKING_URI": placement.tracking_uri,
        "QWENOPS_RAY_ADDRESS": placement.ray_address,
        "QWENOPS_NUM_WORKERS": str(num_workers) if num_workers else "",
        "QWENOPS_MESH": mesh_text(mesh),
        "QWENOPS_USE_GPU": "yes" if gpu else "",
        "QWENOPS_CLUSTER": canonical(cluster) if cluster else "",
        "QWENOPS_ACCOUNT": account_text(placement),
        "QWENOPS_SECRETS": ",".join(sorted(placement.secret_env)),
        **(_WATCHED if placement.artifact_root else {}),
    }


def _resources(task: dsl.PipelineTask, wanted: Resources) -> None:
    task.set_cpu_request(wanted.cpu).set_memory_request(wanted.memory).set_memory_limit(wanted.memory)
    if wanted.num_accelerators:
        task.set_accelerator_type(wanted.accelerator).set_accelerator_limit(wanted.num_accelerators)


def _refuse(placement: Placement) -> None:
    lacking = {
        "priority_class": bool(placement.priority_class),
        "runtime_class": bool(placement.runtime_class),
        "pod_security_context": bool(placement.pod_security_context),
        "affinity": bool(set(placement.affinity) - {"nodeAffinity"}),
        "security_context": bool(placement.security_context) and not set(placement.security_context) & set(_IDENTITY),
        "volumes": any(volume.host_path for volume in placement.volumes.values()),
    }
    for field, asked in lacking.items():
        if asked:
            raise RecipeError(
                f"placement {placement.name} sets {field}, which a Kubeflow step cannot have",
                expected="a field that Kubeflow applies to steps (for volumes: a claim)",
                found=getattr(placement, field),
                action="set it on the head and worker groups of the placement's clusters",
            )


def _pod(task: dsl.PipelineTask, placement: Placement) -> None:
    kubernetes.set_image_pull_policy(task, placement.image_pull_policy)
    if placement.pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(placement.pull_secrets))
    for label, value in (placement.labels | PART_OF).items():
        kubernetes.add_pod_label(task, label_key=label, label_value=value)
    for name, value in placement.annotations.items():
        kubernetes.add_pod_annotation(task, annotation_key=name, annotation_value=value)
    for variable, path in _FIELDS.items():
        kubernetes.use_field_path_as_env(task, env_name=variable, field_path=path)
    identity = {_IDENTITY[key]: value for key, value in placement.security_context.items() if key in _IDENTITY}
    if identity:
        kubernetes.set_security_context(task, **identity)
    if placement.timeout_seconds:
        kubernetes.set_timeout(task, placement.timeout_seconds)


def _nodes(task: dsl.PipelineTask, placement: Placement) -> None:
    for label, value in placement.node_selector.items():
        kubernetes.add_node_selector(task, label_key=label, label_value=value)
    for item in placement.tolerations:
        operator = "Equal" if item.value else "Exists"
        kubernetes.add_toleration(task, key=item.key, operator=operator, value=item.value or None, effect=item.effect)
    if placement.affinity:
        kubernetes.add_node_affinity_json(task, placement.affinity["nodeAffinity"])


def _mounts(task: dsl.PipelineTask, placement: Placement) -> None:
    for volume in placement.volumes.values():
        kubernetes.mount_pvc(task, pvc_name=volume.claim, mount_path=volume.mount_path, sub_path=volume.sub_path)
    if placement.shm_size:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=placement.shm_size)
    for variable, place in placement.secret_env.items():
        secret, _, key = place.partition("/")
        kubernetes.use_secret_as_env(task, secret_name=secret, secret_key_to_env={key: variable})
