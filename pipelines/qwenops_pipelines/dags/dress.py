"""Apply a placement to a task: image, resources, nodes, volumes, environment, retries, caching."""

from kfp import dsl, kubernetes

from qwenops.recipe.account import account_text
from qwenops.recipe.placement import Placement, Resources

# In a pod: JSON lines to the log that the cluster collects, OpenMetrics at the chart's port, GPU use to MLflow.
_WATCHED = {"QWENOPS_LOGS": "stderr", "QWENOPS_METRICS_PORT": "9464", "QWENOPS_SYSTEM_METRICS": "yes"}


def dress(task: dsl.PipelineTask, placement: Placement, area: str) -> None:
    """Set everything on `task` that says where it runs. What it computes stays untouched.

    Args:
        task: A task of any pipeline.
        placement: The place.
        area: Area of the task's stage; picks its resources.
    """
    task.set_container_image(placement.image)
    if placement.retries:
        task.set_retry(placement.retries, backoff_duration="60s", backoff_factor=2.0)
    if area in placement.resources:
        _resources(task, placement.resources[area])
    environment = {
        "QWENOPS_STORE": placement.artifact_root,
        "QWENOPS_EVENTS": placement.artifact_root
        and f"{placement.artifact_root}/events/{dsl.PIPELINE_JOB_ID_PLACEHOLDER}",
        "QWENOPS_CACHE": placement.cache_root,
        "QWENOPS_TRACKING_URI": placement.tracking_uri,
        "QWENOPS_RAY_ADDRESS": placement.ray_address,
        "QWENOPS_NUM_WORKERS": str(placement.num_workers) if placement.num_workers else "",
        "QWENOPS_ACCOUNT": account_text(placement),
        "QWENOPS_SECRETS": ",".join(sorted(placement.secret_env)),
        **(_WATCHED if placement.artifact_root else {}),
    }
    for name, value in environment.items():
        if value:
            task.set_env_variable(name, value)
    _kubernetes(task, placement)


def _resources(task: dsl.PipelineTask, wanted: Resources) -> None:
    task.set_cpu_request(wanted.cpu).set_memory_request(wanted.memory).set_memory_limit(wanted.memory)
    if wanted.num_accelerators:
        task.set_accelerator_type(wanted.accelerator).set_accelerator_limit(wanted.num_accelerators)


def _kubernetes(task: dsl.PipelineTask, placement: Placement) -> None:
    if not placement.artifact_root:
        return
    kubernetes.set_image_pull_policy(task, placement.image_pull_policy)
    if placement.volume_claim:
        kubernetes.mount_pvc(task, pvc_name=placement.volume_claim, mount_path=placement.volume_mount)
    for label, value in placement.node_selector.items():
        kubernetes.add_node_selector(task, label_key=label, label_value=value)
    for item in placement.tolerations:
        operator = "Equal" if item.value else "Exists"
        kubernetes.add_toleration(task, key=item.key, operator=operator, value=item.value or None, effect=item.effect)
    for variable, place in placement.secret_env.items():
        secret, _, key = place.partition("/")
        kubernetes.use_secret_as_env(task, secret_name=secret, secret_key_to_env={key: variable})
