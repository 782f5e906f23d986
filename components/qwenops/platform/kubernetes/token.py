"""The task of a RayJob as one word of a command line.

The token is the task as compressed JSON in URL-safe base64: KubeRay splits an entrypoint like a shell and joins it
without quotes, which JSON would not survive.
"""

import base64
import json
import os
import zlib
from dataclasses import asdict, replace
from typing import Any, TypedDict

from qwenops.platform.context import RunContext
from qwenops.platform.stage.task import TaskSpec

# What MLflow's plugin for Kubeflow gives to a step and nothing else knows; secrets come by the pod template.
_PASSED_ON = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_WORKSPACE")


class Order(TypedDict):
    """What a driver is told: the task, the fields of its `RunContext`, environment variables, the name of its job."""

    task: TaskSpec
    context: dict[str, Any]
    environment: dict[str, str]
    job: str


def write_token(spec: TaskSpec, context: RunContext, job: str) -> str:
    """The argument that makes the driver run the task of `spec`.

    Args:
        spec: The task.
        context: Where the step runs; the driver connects to its own cluster.
        job: Name of the RayJob; marks the driver's events.
    """
    driver = replace(context, cluster="", stage_server="", ray_address="auto", show_bar="no")
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    facts: Order = {"task": spec, "context": asdict(driver), "environment": environment, "job": job}
    packed = zlib.compress(json.dumps(facts, sort_keys=True).encode(), 9)
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def read_token(token: str) -> Order:
    """What `write_token` wrote."""
    return json.loads(zlib.decompress(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))))
